"""A finished cell counted again: its model from the stored weights, its scores from these and the stored predictions.

Nothing is trained and nothing chosen. What a task yields that solves itself is not counted again but solved again,
which is a fit like any other.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from whitebench import evaluation, exam, footing
from whitebench.course import build, resolve
from whitebench.errors import WhitebenchError
from whitebench.fit import PREDICTIONS, RECOUNTED, WEIGHTS, FitPlan, Fitted
from whitebench.fitting import counted, provenance_of
from whitebench.provenance import CODE, commit_of, now
from whitebench.quotation import told
from whitebench.seeds import seed_everything

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from whitebench.catalog import Catalog


def recount(plan: FitPlan, catalog: Catalog) -> Fitted:
    """Return the scores of the cell whose weights and predictions lie in the plan's folder.

    Scores that need predictions alone are made of the stored ones, those that look inside of a model with the stored
    weights. Beside these files is left what that model itself predicts: RECOUNTED.

    Raises:
        WhitebenchError: the plan names something unknown, or the weights are not those of its model.
    """
    started, code = now(), commit_of(CODE)
    course = resolve(plan, catalog)
    ground = footing.take(plan.budget.threads)
    stored = load_file(plan.folder / PREDICTIONS)["logits"]
    seed_everything(plan.seed)
    subject = build(course, is_blank=True)
    _load_state(plan.folder / WEIGHTS, subject.module)
    subject.module.to(torch.accelerator.current_accelerator() or "cpu")
    footing.check(ground, f"model {plan.contestant.model}")
    test, fingerprint = exam.load(course, "test", ground)
    if len(stored) != len(test):
        raise WhitebenchError(
            f"task {plan.task} serves {len(test)} test samples, and {len(stored)} were predicted: its data changed"
        )
    reader = None
    if course.readouts:
        reader = exam.reader_of(course, subject, exam.load(course, "train", ground)[0])
    logits = exam.predict(course, subject, test.inputs, reader)
    found = {"labels": test.labels.contiguous(), "logits": logits}
    save_file(found | evaluation.per_sample(course.primary, stored, test.labels), plan.folder / RECOUNTED)
    marks = exam.mark(course, subject, test, stored, reader)
    provenance = provenance_of(course, subject, started, code, None)
    return Fitted(
        reported_epoch=0,
        validation=None,
        validation_loss=None,
        training_seconds=0.0,
        scores=marks.scores,
        costs=counted(subject),
        test_samples=len(test),
        provenance=dataclasses.replace(provenance, ended=now(), fingerprints={"test": fingerprint}),
    )


def _load_state(file: Path, module: nn.Module) -> None:
    try:
        module.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise WhitebenchError(f"the stored weights are not those of this model: {told(error)}") from error
