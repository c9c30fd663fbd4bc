"""One fit from names to numbers: look up, build, train, choose an epoch, open the test split once, score."""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from whitebench import cost, evaluation, exam, footing, group, needs, scoring
from whitebench.course import Course, build, resolve
from whitebench.errors import WhitebenchError
from whitebench.evaluation import Subject
from whitebench.fit import PICTURES, PREDICTIONS, TRACES, WEIGHTS, AskTest, FitPlan, Fitted, Pruned
from whitebench.gallery import save_pictures
from whitebench.identity import ENGINES
from whitebench.provenance import CODE, Provenance, commit_of, now, processor_name
from whitebench.reading import Direction
from whitebench.readout import Reader
from whitebench.result import Score, digest
from whitebench.seeds import seed_everything
from whitebench.solving import solve
from whitebench.source import versions_of
from whitebench.specs import Samples
from whitebench.training import Hear, Trained, train

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from whitebench.catalog import Catalog


def run_fit(plan: FitPlan, catalog: Catalog, hear: Hear) -> Fitted | Pruned:
    """Train, validate and, for a cell, test once what `plan` describes.

    The same plan on the same machine gives the same numbers to the last digit. A fit whose folder
    holds a checkpoint goes on from it. A cell asks before it opens the test split, its weights
    already on disk. A task that solves itself does so instead of all this.

    Raises:
        WhitebenchError: the plan names something unknown, asks for a model that cannot be built, or something in
            it changes settings of torch that hold for the whole process.
        DivergedError: the loss or the gradient is not a finite number; says when, where in the model, and what the
            last finite loss was.
        MetricError: the primary metric cannot be computed on the validation split.
    """
    started, code = now(), commit_of(CODE)
    course = resolve(plan, catalog)
    ground = footing.take(plan.budget.threads)
    if course.task.solve is not None:
        return _solved(course, ground, started, code)
    training, train_print = exam.load(course, "train", ground)
    validation, validation_print = exam.load(course, "validation", ground)
    memory = cost.PeakMemory("cuda" if torch.cuda.is_available() else "cpu")
    seed_everything(plan.seed)
    subject = build(course)
    footing.check(ground, f"model {plan.contestant.model}")
    trained = train(course, subject, training, validation, hear)
    footing.check(ground, f"the training of model {plan.contestant.model}")
    if trained.is_pruned:
        return Pruned(epoch=len(trained.history))
    peak, reader = max(group.everyone_says(memory.above_start())), exam.reader_of(course, subject, training)
    if trained.history:
        reported = trained.history[trained.reported_epoch - 1]
        value, loss = reported.validation, reported.validation_loss
    else:
        logits = exam.predict(course, subject, validation.inputs, reader)
        value, loss = _as_it_stands(course, subject, logits, validation), None
    provenance = provenance_of(course, subject, started, code, trained.resumed_from_epoch, pieces=trained.pieces)
    fitted = Fitted(
        reported_epoch=trained.reported_epoch,
        validation=value,
        validation_loss=loss,
        training_seconds=sum(one.seconds for one in trained.history),
        facts=training.facts,
        provenance=dataclasses.replace(
            provenance, ended=now(), fingerprints={"train": train_print, "validation": validation_print}
        ),
    )
    if plan.purpose == "trial":
        return fitted
    weights = _keep(state_of(subject.module), plan.folder / WEIGHTS)
    hear(AskTest(weights_sha256=weights))
    tested = _test(course, subject, dataclasses.replace(fitted, weights_sha256=weights), reader, ground)
    if not group.is_first():
        return tested
    return dataclasses.replace(tested, costs=[*_costs(course, subject, training, trained, peak), *tested.costs])


def _solved(course: Course, ground: footing.Footing, started: str, code: tuple[str | None, bool | None]) -> Fitted:
    plan, memory = course.plan, cost.PeakMemory()
    seed_everything(plan.seed)
    subject = build(course)
    footing.check(ground, f"model {plan.contestant.model}")
    solved = solve(course, subject)
    footing.check(ground, f"task {plan.task}")
    save_file(dict(solved.arrays), plan.folder / PREDICTIONS)
    save_pictures(solved.scored.pictures, plan.folder / PICTURES)
    return Fitted(
        reported_epoch=0,
        validation=None,
        validation_loss=None,
        training_seconds=0.0,
        scores=solved.scored.scores,
        costs=[
            _cost("solving-time", "s", "lower", solved.seconds),
            _cost("peak-memory", "bytes", "lower", memory.above_start()),
        ],
        test_samples=solved.draws,
        predictions_sha256=digest((plan.folder / PREDICTIONS).read_bytes()),
        provenance=dataclasses.replace(provenance_of(course, subject, started, code, None), ended=now()),
    )


def _as_it_stands(course: Course, subject: Subject, logits: Tensor, validation: Samples[Any]) -> float:
    """Return the primary metric on the validation split of a model that was not trained."""
    with scoring.ranking(course.primary):
        metric = scoring.filled(course.primary, subject.context, logits, validation.labels)
    return scoring.headline(course.primary, metric)


def _test(
    course: Course,
    subject: Subject,
    fitted: Fitted,
    reader: Reader,
    ground: footing.Footing,
) -> Fitted:
    plan, budget = course.plan, course.plan.budget
    test, fingerprint = exam.load(course, "test", ground)
    logits = exam.predict(course, subject, test.inputs, reader)
    predictions = {"index": torch.arange(len(test)), "labels": test.labels.contiguous(), "logits": logits}
    predictions |= evaluation.per_sample(course.primary, logits, test.labels)
    predicted = _keep(predictions, plan.folder / PREDICTIONS)
    marks = exam.mark(course, subject, test, logits, reader)
    if group.is_first():
        save_pictures(marks.pictures, plan.folder / PICTURES)
        kinds = needs.traced_kinds(course.metrics, course.model)
        _keep(evaluation.trace_sample(subject, test, kinds, precision=budget.precision), plan.folder / TRACES)
    fingerprints = {**fitted.provenance.fingerprints, "test": fingerprint}
    return dataclasses.replace(
        fitted,
        scores=marks.scores,
        costs=[
            _cost("measuring-time", "s", "none", marks.seconds),
            _cost("measuring-memory", "bytes", "none", marks.memory),
        ],
        test_samples=len(test),
        predictions_sha256=predicted,
        provenance=dataclasses.replace(fitted.provenance, fingerprints=fingerprints, ended=now()),
    )


def _costs(course: Course, subject: Subject, training: Samples[Any], trained: Trained, peak: int) -> list[Score]:
    steady = trained.history[1:] or trained.history  # the first epoch also pays for warming up
    seconds = sum(one.seconds for one in steady)
    rate = len(training) * len(steady) / seconds if steady else None
    seconds_trained = sum(one.seconds for one in trained.history) if steady else None
    share = group.largest_share(course.plan.budget.batch_size)
    rows = subject.take(training.inputs[: -(-share // trained.pieces)])
    untrained = None if steady else "it was not trained here"
    return [
        *counted(subject),
        _cost("training-rate", "samples/s", "higher", rate, untrained),
        _cost("inference-rate", "samples/s", "higher", cost.inference_rate(subject.module, rows)),
        _cost("peak-memory", "bytes", "lower", peak),
        _cost("training-time", "s", "lower", seconds_trained, untrained),
        _cost(
            "device-hours",
            "h",
            "lower",
            None if seconds_trained is None else seconds_trained * group.size() / 3600,
            untrained,
        ),
    ]


def counted(subject: Subject) -> list[Score]:
    """Return the costs that are counted and not measured: the same on every machine."""
    try:
        macs, why = cost.count_macs(subject.module, subject.context.shape), None
    except WhitebenchError as error:
        macs, why = None, str(error)
    return [
        _cost("parameters", "", "lower", cost.count_parameters(subject.module)),
        _cost("macs", "per sample", "lower", macs, why),
    ]


def _cost(name: str, unit: str, direction: Direction, value: float | None, unscored: str | None = None) -> Score:
    return Score(
        name=name,
        metric=name,
        version=1,
        direction=direction,
        unit=unit,
        value=None if value is None else float(value),
        unscored=unscored,
    )


def provenance_of(
    course: Course,
    subject: Subject,
    started: str,
    code: tuple[str | None, bool | None],
    resumed: int | None,
    *,
    pieces: int = 1,
) -> Provenance:
    """Return the circumstances of a fit that `started` with `code`: a commit, and whether it had changes."""
    plan, device = course.plan, subject.device
    libraries = versions_of(ENGINES | {"whitebench"})
    commit, is_dirty = code
    is_cuda = device.type == "cuda"
    return Provenance(
        commit=commit,
        is_dirty=is_dirty,
        distributions={**libraries, **course.distributions},
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        platform=platform.platform(),
        device=torch.cuda.get_device_name(device) if is_cuda else processor_name(),
        threads=torch.get_num_threads(),
        parallel=plan.parallel,
        devices=group.size(),
        pieces=pieces,
        precision=plan.budget.precision,
        seed=plan.seed,
        started=started,
        resumed_from_epoch=resumed,
        is_deterministic=not is_cuda,  # kernels without a deterministic form only warn there
    )


def _keep(arrays: dict[str, Tensor], file: Path) -> str:
    """Write `arrays` and return the sha256 of the file; of several processes one does, and the others return ""."""
    if not group.is_first():
        return ""
    save_file(arrays, file)
    return digest(file.read_bytes())


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's weights by name, on the CPU, as they are stored."""
    # A copy of each: safetensors refuses weights that share storage.
    return {name: weight.detach().cpu().clone().contiguous() for name, weight in module.state_dict().items()}
