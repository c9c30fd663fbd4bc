"""Training: the only room with Lightning. A Course, its built model and two splits in; a history out."""

from __future__ import annotations

import dataclasses
import logging
import math
import operator
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from whitebench.course import Course, feature_width
from whitebench.diagnosis import find_in_gradients, find_in_step
from whitebench.errors import DivergedError
from whitebench.evaluation import headline, ranking
from whitebench.events import EpochEnded
from whitebench.fit import Answer, Message
from whitebench.optimisation import build_optimiser, schedule_factor, soft_targets
from whitebench.pulse import beat
from whitebench.samples import EpochSampler, InOrder, TensorBatches, mix

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
    """The epoch whose weights the model now holds, counted from 1."""
    is_pruned: bool
    resumed_from_epoch: int | None
    """The last epoch of an earlier life of this fit, or None."""


def train(course: Course, subject: Subject, training: Samples, validation: Samples, hear: Hear) -> Trained:
    """Train the model and leave it holding the weights that the budget reports, on the device it was trained on.

    A fit whose folder holds a checkpoint goes on from it and ends bit-identical to an undisturbed one.

    Raises:
        DivergedError: the loss or the gradient is not a finite number; says when, where in the model, and what the
            last finite loss was.
        MetricError: the primary metric cannot be computed on the validation split.
    """
    plan = course.plan
    folder = plan.folder / "checkpoints"
    checkpoint = folder / "last.ckpt"
    earlier = _earlier_epochs(checkpoint, plan.name)
    resumed = len(earlier) or None
    for event in earlier:
        if hear(event) == "prune":
            return Trained(
                history=earlier[: event.epoch],
                reported_epoch=event.epoch,
                is_pruned=True,
                resumed_from_epoch=resumed,
            )
    module = _Module(course, subject, train_samples=len(training))
    # `last` is a callback of its own: one with a monitor leaves a last.ckpt as old as its best epoch.
    last = ModelCheckpoint(dirpath=folder, filename="last", enable_version_counter=False)
    chosen = ModelCheckpoint(
        dirpath=folder, filename="chosen", monitor="validation", mode="max", enable_version_counter=False
    )
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision=cast("Any", plan.budget.precision),
        max_epochs=plan.budget.epochs,
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
        _loader(training, EpochSampler(len(training), plan.budget.batch_size, plan.seed)),
        _loader(validation, InOrder(len(validation), plan.budget.batch_size)),
        ckpt_path=checkpoint if resumed else None,
        weights_only=True,
    )
    reported = len(module.history)
    if plan.budget.report == "chosen" and not module.is_pruned:
        state = torch.load(chosen.best_model_path, weights_only=True, map_location="cpu")
        module.load_state_dict(state["state_dict"])
        reported = len(state["history"])
    subject.module.to(trainer.strategy.root_device)  # Lightning takes it back to the CPU at the end
    return Trained(
        history=module.history,
        reported_epoch=reported,
        is_pruned=module.is_pruned,
        resumed_from_epoch=resumed,
    )


def seed_everything(*numbers: int) -> int:
    """Seed torch, numpy and Python's own generator from all of `numbers`; return the seed."""
    seed = mix(*numbers)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # the same, but for 0.3 ms in which it notes from where it was called, for devices that are not here
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the global one, which strangers' models may draw from
    random.seed(seed)
    return seed


def _earlier_epochs(checkpoint: Path, fit: str) -> list[EpochEnded]:
    """Return what an earlier life of this fit did; nothing, and no checkpoint, where it left none that can be read."""
    if not checkpoint.exists():
        return []
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        return _history_in(state, fit)
    except Exception:  # torch raises half a dozen kinds for a file that is damaged
        _log.exception("%s cannot be read: the fit starts over", checkpoint)
        checkpoint.unlink()
        return []


def _history_in(state: Mapping[str, Any], fit: str) -> list[EpochEnded]:
    return [dataclasses.replace(EpochEnded(**one), fit=fit) for one in state["history"]]


def _loader(samples: Samples, sampler: EpochSampler | InOrder) -> DataLoader[Any]:
    # A generator of its own: DataLoader draws a base seed from the global one when iterated, which
    # would make a resumed fit differ.
    return DataLoader(
        TensorBatches(samples),
        batch_size=None,
        sampler=cast("Any", sampler),
        generator=torch.Generator().manual_seed(0),
    )


class _Module(lightning.LightningModule):
    """The model, its objective and the recipe, as Lightning wants to see them."""

    def __init__(self, course: Course, subject: Subject, *, train_samples: int) -> None:
        super().__init__()
        plan = course.plan
        self.course, self.subject, self.recipe = course, subject, plan.recipe
        self.model = subject.module
        self.objective = course.objective.build(course.task.classes, feature_width(course, subject))
        self.primary = course.primary.build(subject.context)
        self.steps_per_epoch = -(-train_samples // plan.budget.batch_size)
        self.history: list[EpochEnded] = []
        self.is_pruned = False
        self.last_finite: float | None = None
        self.losses, self.norms, self.seconds = _Mean(), _Mean(), 0.0
        self.validation_losses = _Mean()
        self.features: Tensor | None = None
        if "features" in course.objective.needs:
            self.model.get_submodule(course.model.head).register_forward_pre_hook(self._keep_features)

    def _keep_features(self, _head: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.features = given[0]

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective, a scalar, and the logits (B, C)."""
        logits = self.model(inputs)
        given = {"logits": logits, "features": self.features, "targets": targets}
        loss = self.objective(*[given[need] for need in self.course.objective.needs]).mean()
        return loss, logits

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = reduce(operator.add, self.terms(batch, index).values())
        value = loss.item()
        if not math.isfinite(value):
            why = find_in_step(self.model, lambda: self.terms(batch, index))
            raise self._diverged("loss", value, f"in epoch {self.current_epoch + 1}, step {self.global_step + 1}", why)
        self.last_finite = value
        self.losses.add(value)
        beat()
        return loss

    def terms(self, batch: tuple[Tensor, Tensor], index: int) -> dict[str, Tensor]:
        """Return what the loss of a training step adds up from, the same however often it is asked."""
        inputs, labels = batch
        # Every draw of this step (augmentation, dropout) follows from seed, epoch and step: a resumed
        # fit is bit-identical to an undisturbed one.
        seed = seed_everything(self.course.plan.seed, self.current_epoch, index)
        if self.recipe.augment and self.course.task.augment is not None:
            generator = torch.Generator(device=inputs.device).manual_seed(seed)
            inputs = self.course.task.augment(self.course.task_config, inputs, generator)
        loss, _ = self.loss(inputs, soft_targets(labels, self.course.task.classes, self.recipe.label_smoothing))
        terms = {f"objective {self.course.objective.name!r}": loss}
        if self.course.model.penalty is not None:
            terms["model's penalty"] = self.course.model.penalty(self.model)
        return terms

    def _diverged(self, what: str, value: float, when: str, why: str) -> DivergedError:
        before = "none" if self.last_finite is None else f"{self.last_finite:.4g}"
        return DivergedError(f"the {what} is {value} {when} (last finite loss: {before}): {why}")

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        inputs, labels = batch
        targets = soft_targets(labels, self.course.task.classes, 0.0)
        loss, logits = self.loss(inputs, targets)
        value = float(loss)
        if not math.isfinite(value):
            why = find_in_step(self.model, lambda: {"objective": self.loss(inputs, targets)[0]})
            raise self._diverged("validation loss", value, f"after epoch {self.current_epoch + 1}", why)
        self.validation_losses.add(value, weight=len(labels))
        beat()
        given = {"logits": logits.float(), "labels": labels}
        with ranking(self.course.primary):
            self.primary.update(*[given[need] for need in self.course.primary.needs])

    def on_validation_epoch_end(self) -> None:
        value = headline(self.course.primary, self.primary)
        self.primary.reset()
        self.history.append(
            EpochEnded(
                fit=self.course.plan.name,
                purpose=self.course.plan.purpose,
                epoch=self.current_epoch + 1,
                epochs=self.course.plan.budget.epochs,
                validation=value,
                train_loss=self.losses.take(),
                validation_loss=self.validation_losses.take(),
                learning_rate=float(self.trainer.optimizers[0].param_groups[0]["lr"]),
                gradient_norm=self.norms.take(),
                seconds=self.seconds,
            )
        )
        self.log("validation", value if self.course.primary.direction != "lower" else -value)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: object, **__: object) -> None:
        limit = self.recipe.clip_norm or math.inf
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        # What clip_grad_norm_ does, in its two halves: between them the gradients are still as they came.
        norm = nn.utils.get_total_norm([weight.grad for weight in trained if weight.grad is not None])
        value = float(norm)
        if not math.isfinite(value):  # the step would make every weight NaN, after the last step unnoticed
            why = find_in_gradients({name.removeprefix("model."): one for name, one in self.named_parameters()})
            when = f"in epoch {self.current_epoch + 1}, step {self.global_step + 1}"
            raise self._diverged("gradient norm", value, when, why)
        nn.utils.clip_grads_with_norm_(trained, limit, norm)
        self.norms.add(value)

    def configure_optimizers(self) -> Any:
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        optimiser = build_optimiser(self.recipe, self.course.plan.hyperparameters, trained)
        warmup = self.recipe.warmup_epochs * self.steps_per_epoch
        total = self.course.plan.budget.epochs * self.steps_per_epoch
        factor = partial(schedule_factor, schedule=self.recipe.schedule, warmup=warmup, total=total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = [dataclasses.asdict(one) for one in self.history]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = _history_in(checkpoint, self.course.plan.name)


class _Reporter(Checkpoint):
    """Tells every epoch to whoever hears, and stops where the answer is to prune.

    A Checkpoint, so that Lightning lets it come after those that save: an epoch that was told is on disk.
    """

    def __init__(self, hear: Hear) -> None:
        self.hear, self.began = hear, 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        self.began = time.perf_counter()

    def on_validation_start(self, _trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        cast("_Module", module).seconds = time.perf_counter() - self.began

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        ours = cast("_Module", module)
        if self.hear(ours.history[-1]) == "prune":
            ours.is_pruned = True
            trainer.should_stop = True


class _Mean:
    """A mean that is read once and begins anew."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0.0

    def add(self, value: float, *, weight: float = 1.0) -> None:
        self.total, self.weight = self.total + value * weight, self.weight + weight

    def take(self) -> float:
        mean = self.total / self.weight if self.weight else 0.0
        self.total, self.weight = 0.0, 0.0
        return mean
