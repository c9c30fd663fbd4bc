"""Training, by Lightning: a Course, its built model and two splits in; a history out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from whitebench import group
from whitebench.course import Course
from whitebench.errors import WhitebenchError
from whitebench.events import EpochEnded
from whitebench.feed import Loader
from whitebench.fit import Answer, Message
from whitebench.module import Module, history_in
from whitebench.samples import EpochSampler, InOrder, TensorBatches
from whitebench.specs import Stream

if TYPE_CHECKING:
    from whitebench.evaluation import Subject
    from whitebench.specs import Samples

Hear: TypeAlias = Callable[[Message], Answer]
"""Takes what the fit says and returns the answer; the fit waits for it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves: the reported epoch's weights in the model, and how it went."""

    history: Sequence[EpochEnded]
    reported_epoch: int
    """The epoch whose weights the model now holds, counted from 1; 0 where there was none to train."""
    is_pruned: bool
    resumed_from_epoch: int | None
    """The last epoch of an earlier life of this fit, or None."""
    pieces: int = 1
    """In how many pieces each device took its share of a batch, so that it fitted into memory."""


def train(course: Course, subject: Subject, training: Samples[Any], validation: Samples[Any], hear: Hear) -> Trained:
    """Train the model and leave it holding the weights that the budget reports, on the device it was trained on.

    A fit whose folder holds a checkpoint goes on from it and ends bit-identical to an undisturbed one. Several
    processes train one model together, each on its share of every batch; the first of them speaks to `hear` and writes
    the checkpoints, from which any number of processes may go on.

    Raises:
        DivergedError: the loss or the gradient is not a finite number; says when, where in the model, and what the
            last finite loss was.
        MetricError: the primary metric cannot be computed on the validation split.
    """
    plan = course.plan
    if plan.epochs == 0:
        subject.module.to(torch.accelerator.current_accelerator() or "cpu")
        return Trained(history=[], reported_epoch=0, is_pruned=False, resumed_from_epoch=None)
    folder = plan.folder / "checkpoints"
    checkpoint = folder / "last.ckpt"
    earlier = group.first_says(lambda: _earlier_epochs(checkpoint, plan.name))
    resumed = len(earlier) or None
    if resumed and not checkpoint.exists():
        raise WhitebenchError(
            f"{checkpoint} is not on this machine, and the fit goes on from it: put the store into a folder that all "
            "machines share"
        )
    for event in earlier:
        if hear(event) == "prune":
            return Trained(
                history=earlier[: event.epoch],
                reported_epoch=event.epoch,
                is_pruned=True,
                resumed_from_epoch=resumed,
            )
    module = Module(course, subject, training)
    # `last` is a callback of its own: one with a monitor leaves a last.ckpt as old as its best epoch.
    last = ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False)
    chosen = ModelCheckpoint(
        dirpath=folder, filename="chosen", monitor="validation", mode="max", enable_version_counter=False
    )
    trainer = lightning.Trainer(
        **_where(),
        precision=cast("Any", plan.budget.precision),
        max_epochs=plan.epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic="warn",
        use_distributed_sampler=False,
        callbacks=[chosen, last, _Reporter(hear)],
        default_root_dir=plan.folder,
    )
    # Lightning would take note of SIGTERM instead of ending, and when it is done put back Python's idea of every
    # handler: faulthandler's, of which Python knows nothing, would be gone.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit(
        module,
        _loader(
            TensorBatches(training, is_shared=not module.is_read_whole),
            EpochSampler(len(training), plan.budget.batch_size, plan.seed),
        ),
        _loader(TensorBatches(validation), InOrder(len(validation), plan.budget.batch_size)),
        ckpt_path=checkpoint if resumed else None,
        weights_only=True,
    )
    reported = len(module.history)
    if plan.budget.report == "chosen" and not module.is_pruned:
        reported = group.first_says(lambda: _load(module, chosen.best_model_path))
        group.make_equal(module)
    subject.module.to(trainer.strategy.root_device)  # Lightning takes it back to the CPU at the end
    return Trained(
        history=module.history,
        reported_epoch=reported,
        is_pruned=module.is_pruned,
        resumed_from_epoch=resumed,
        pieces=module.pieces,
    )


class _OneOfSeveral(SingleDeviceStrategy):
    """For Lightning each process trains alone; gradients are added up by the module. One of them writes files."""

    @property
    def is_global_zero(self) -> bool:
        return group.is_first()


def _where() -> dict[str, Any]:
    """Return what Lightning is told of devices."""
    if group.size() == 1:
        return {"accelerator": "auto", "devices": 1}
    device = group.device()
    return {
        "accelerator": "cpu" if device.type == "cpu" else "gpu",
        "devices": 1 if device.type == "cpu" else [device.index],
        "strategy": _OneOfSeveral(device),
        "plugins": [LightningEnvironment()],  # else it would ask SLURM and torchrun what is none of its business
    }


def _load(module: Module, checkpoint: str) -> int:
    """Put a checkpoint's weights into `module`; return the epoch they are of."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    module.load_state_dict(state["state_dict"])
    return len(state["history"])


def _earlier_epochs(checkpoint: Path, fit: str) -> list[EpochEnded]:
    """Return what an earlier life of this fit did; nothing, and no checkpoint, where it left none that can be read."""
    if not checkpoint.exists():
        return []
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        return history_in(state, fit)
    except Exception:  # torch raises half a dozen kinds for a file that is damaged
        _log.exception("%s cannot be read: the fit starts over", checkpoint)
        checkpoint.unlink()
        return []


def _loader(batches: TensorBatches, sampler: EpochSampler | InOrder) -> Loader:
    inputs = batches.samples.inputs
    workers = inputs.workers if isinstance(inputs, Stream) else 0
    return Loader(batches, sampler, workers=workers, is_kept=isinstance(sampler, EpochSampler))


class _Reporter(Checkpoint):
    """Tells every epoch to whoever hears, and stops where the answer is to prune.

    A Checkpoint, so that Lightning lets it come after those that save: an epoch that was told is on disk.
    """

    def __init__(self, hear: Hear) -> None:
        self.hear, self.began = hear, 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.began = time.perf_counter()

    def on_validation_start(self, _trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        cast("Module", module).seconds = time.perf_counter() - self.began

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        ours = cast("Module", module)
        if self.hear(ours.history[-1]) == "prune":
            ours.is_pruned = True
            trainer.should_stop = True
