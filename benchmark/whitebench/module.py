"""A fit as Lightning's module: the model, its objective and the recipe, step by step."""

from __future__ import annotations

import dataclasses
import math
import operator
import threading
from collections.abc import Mapping
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import lightning
import torch
from torch import Tensor, nn

from whitebench import group
from whitebench.augmentation import build_augmentation
from whitebench.course import Course, feature_width, refuse_shares
from whitebench.diagnosis import find_in_gradients, find_in_step
from whitebench.errors import DivergedError
from whitebench.evaluation import autocast
from whitebench.events import EpochEnded
from whitebench.feed import scale, to_numbers
from whitebench.optimisation import build_optimiser, mix_up, schedule_factor, soft_targets
from whitebench.pulse import beat
from whitebench.readout import Reader
from whitebench.rehearsal import pieces_that_fit, refuse_memory_of_batches, rehearsing
from whitebench.scoring import headline, ranking
from whitebench.seeds import seed_everything
from whitebench.specs import Samples, Stream

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from whitebench.evaluation import Subject
    from whitebench.readout import Predictor

Batch: TypeAlias = tuple[Tensor, Tensor, int]
"""Inputs and labels of this process's share of a batch, and how many samples the batch has in all."""


class Module(lightning.LightningModule):
    """The model, its objective and the recipe, as Lightning wants to see them."""

    def __init__(self, course: Course, subject: Subject, training: Samples[Any]) -> None:
        super().__init__()
        plan = course.plan
        assert plan.recipe is not None
        self.course, self.subject, self.recipe = course, subject, plan.recipe
        self.model = subject.module
        self.objective = course.build_objective(feature_width(course, subject))
        self.training_split = training
        self.augmentation = build_augmentation(self.recipe, subject.context.shape, course.task.permits)
        # In a tuple, where torch does not take it for a second model with weights of its own.
        self.trained = (_compiled(self.model) if plan.budget.compile else self.model,)
        self.predictor: Predictor | None = None
        self.primary = course.primary.build(subject.context)
        self.steps_per_epoch = -(-len(training) // plan.budget.batch_size)
        self.pieces = 1
        """In how many pieces each process takes its share of a batch."""
        self.piece_size: int | None = None
        """How many samples are in one; None where there is but one."""
        self.history: list[EpochEnded] = []
        self.is_pruned = False
        self.last_finite: float | None = None
        self.losses, self.norms, self.seconds = _Mean(), _Mean(), 0.0
        self.validation_losses = _Mean()
        self.features: Tensor | None = None
        self.nothing: tuple[Tensor, Tensor | None]
        """Logits and features of no samples, as the last pass gave them of some."""
        self.watch: RemovableHandle | None = None
        head = self.model.get_submodule(course.model.head)
        if "features" in course.objective.needs or course.readout is not None:
            self.watch = head.register_forward_pre_hook(self._keep_features)
        if "logits" not in course.objective.needs:
            head.requires_grad_(requires_grad=False)  # nothing would train it, and weight decay would shrink it

    def _keep_features(self, _head: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.features = given[0]

    def on_fit_end(self) -> None:
        self.features = None
        if self.watch is not None:
            self.watch.remove()  # it holds this module, and with it the training split

    @property
    def is_drawn_whole(self) -> bool:
        """Whether what is drawn for a training batch is drawn for all of it, so that each process needs all of it."""
        is_augmented = self.recipe.augment and self.course.task.augment is not None
        return is_augmented or self.augmentation is not None or bool(self.recipe.mixup)

    @property
    def is_read_whole(self) -> bool:
        """Whether each process takes all of a training batch out of memory; of what is streamed it reads its share."""
        return self.is_drawn_whole and not isinstance(self.training_split.inputs, Stream)

    def on_train_start(self) -> None:
        plan, samples = self.course.plan, len(self.training_split)
        share = group.largest_share(min(plan.budget.batch_size, samples))
        if group.size() > 1 or self.device.type != "cpu" or plan.limits.memory_gib is not None:
            self.pieces = max(group.everyone_says(self._rehearse(share)))
            self.piece_size = -(-share // self.pieces) if self.pieces > 1 else None

    def _rehearse(self, share: int) -> int:
        """Return in how many pieces this process has to take its share of a batch, so that memory suffices."""
        is_additive, who = self.course.objective.is_additive, f"model {self.course.plan.contestant.model}"
        with rehearsing(self.model, [weight for weight in self.parameters() if weight.requires_grad]):
            pieces = pieces_that_fit(self._try, share, most=share if is_additive else 1)
            if group.size() > 1 or pieces > 1:
                refuse_shares(self.course, self.model)
                refuse_memory_of_batches(who, self.model, lambda: self._try(-(-share // pieces)))
        return pieces

    def _try(self, samples: int) -> None:
        """Pass so many samples through the model and back; alone, so that nobody has to wait."""
        split = self.training_split
        inputs, labels = self.subject.take(split.inputs[:samples]), split.labels[:samples].to(self.device)
        targets = soft_targets(labels, self.course.classes, self.recipe.label_smoothing)
        with autocast(self.device, self.course.plan.budget.precision):
            logits = self._logits(inputs)
            given = {"logits": logits, "features": self.features, "targets": targets}
            needed: list[Any] = [given[need] for need in self.course.objective.needs]
            loss = self.objective(*needed).mean()
            if self.course.model.penalty is not None:
                loss = loss + self.course.model.penalty(self.model)
        loss.backward()

    def loss(self, inputs: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the objective, a scalar, and the logits (B, C).

        The mean over these samples; where the objective needs the whole batch, that of all its `count` samples.
        """
        logits = self._logits(inputs)
        given = {"logits": logits, "features": self.features, "targets": targets}
        needed: list[Any] = [given[need] for need in self.course.objective.needs]
        if not self.course.objective.is_additive:
            needed = [group.whole_with_gradient(one, count) for one in needed]
        return self.objective(*needed).mean(), logits

    def _logits(self, inputs: Tensor) -> Tensor:
        if len(inputs) == 0:  # the others of the group wait for what we make of nothing; a model may not like it
            nothing, features = self.nothing
            self.features = None if features is None else features.clone().requires_grad_(self.training)
            return nothing.clone().requires_grad_(self.training)
        logits: Tensor = self.trained[0](inputs) if self.training else self.model(inputs)
        if group.size() > 1:
            self.nothing = (blank(logits), None if self.features is None else blank(self.features))
        return logits

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of this process's share, as a part of the batch's; of several pieces the last one's."""
        if self.piece_size is not None:
            self.zero_grad()
        if self.is_drawn_whole and not self.is_read_whole:
            batch = _put_together(batch)
        pieces, count = self.drawn(batch, index), batch[2]
        loss = None
        for number, piece in enumerate(pieces):
            if loss is not None:
                pass_back(loss)
            loss = reduce(operator.add, self.terms(*piece, count).values())
            value, weight = loss.item(), len(piece[0]) / count
            if not math.isfinite(value):
                again = partial(self._again, batch, index, number)
                when = f"in epoch {self.current_epoch + 1}, step {self.global_step + 1}"
                raise self._diverged("loss", value, when, find_in_step(self.model, again))
            if weight:
                self.last_finite = value / weight
                self.losses.add(value / weight, weight=weight)
            beat()
        return torch.zeros((), device=self.device, requires_grad=True) if loss is None else loss

    def _again(self, batch: Batch, index: int, number: int) -> dict[str, Tensor]:
        return self.terms(*self.drawn(batch, index)[number], batch[2])

    def optimizer_zero_grad(self, *args: Any) -> None:
        if self.piece_size is None:  # else the gradients of the pieces before the last are there already
            super().optimizer_zero_grad(*args)

    def terms(self, inputs: Tensor, targets: Tensor, count: int) -> dict[str, Tensor]:
        """Return what these samples' part in the loss of a batch of `count` adds up from."""
        loss, _ = self.loss(inputs, targets, count)
        terms = {f"objective {self.course.objective.name!r}": loss}
        if self.course.model.penalty is not None and len(inputs):
            terms["model's penalty"] = self.course.model.penalty(self.model)
        if len(inputs) == count:
            return terms
        return {name: len(inputs) / count * term for name, term in terms.items()}

    def drawn(self, batch: Batch, index: int) -> list[tuple[Tensor, Tensor]]:
        """Return the inputs and targets of this process's share of a training batch, in pieces.

        The same however often it is asked; what is drawn is drawn for the whole batch, then shared.
        """
        inputs, labels = to_numbers(batch[0]), batch[1]
        # Every draw of this step (augmentation, dropout) follows from seed, epoch and step: a resumed
        # fit is bit-identical to an undisturbed one.
        seed = seed_everything(self.course.plan.seed, self.current_epoch, index)
        if self.recipe.augment and self.course.task.augment is not None:
            generator = torch.Generator(device=inputs.device).manual_seed(seed)
            inputs = self.course.task.augment(self.course.task_config, inputs, generator)
        if self.augmentation is not None:
            inputs = self.augmentation(inputs)
        inputs = scale(inputs, self.subject.scaling)
        targets = soft_targets(labels, self.course.classes, self.recipe.label_smoothing)
        if self.recipe.mixup:
            inputs, targets = mix_up(inputs, targets, self.recipe.mixup)
        if self.is_drawn_whole:
            inputs, targets = group.share(inputs), group.share(targets)
        if group.size() > 1:  # dropout is drawn by each for its own
            seed_everything(self.course.plan.seed, self.current_epoch, index, group.rank())
        if len(inputs) == 0 and self.course.objective.is_additive:
            return []
        size = self.piece_size or max(len(inputs), 1)
        return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))

    def _diverged(self, what: str, value: float, when: str, why: str) -> DivergedError:
        before = "none" if self.last_finite is None else f"{self.last_finite:.4g}"
        return DivergedError(f"the {what} is {value} {when} (last finite loss: {before}): {why}")

    def on_validation_epoch_start(self) -> None:
        if self.course.readout is not None:
            budget = self.course.plan.budget
            readouts = {self.course.reads_by: self.course.readout}
            size, precision = budget.batch_size, budget.precision
            reader = Reader(self.subject, readouts, self.training_split, batch_size=size, precision=precision)
            self.predictor = reader.predictor(self.course.reads_by)

    def validation_step(self, batch: Batch, _index: int) -> None:
        inputs, labels, count = self.subject.take(batch[0]), batch[1], batch[2]
        if len(inputs) == 0 and self.course.objective.is_additive:
            return
        targets = soft_targets(labels, self.course.classes, 0.0)
        loss, logits = self.loss(inputs, targets, count)
        if len(inputs) == 0:
            return
        value = float(loss)
        if not math.isfinite(value):
            why = find_in_step(self.model, lambda: {"objective": self.loss(inputs, targets, count)[0]})
            raise self._diverged("validation loss", value, f"after epoch {self.current_epoch + 1}", why)
        self.validation_losses.add(value, weight=len(labels))
        beat()
        if self.predictor is not None:
            assert self.features is not None
            logits = self.predictor(self.features.float())
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
                epochs=self.course.plan.epochs,
                validation=value,
                train_loss=self.losses.take(),
                validation_loss=self.validation_losses.take(),
                learning_rate=float(self.trainer.optimizers[0].param_groups[0]["lr"]),
                gradient_norm=self.norms.take(),
                seconds=self.seconds,
            )
        )
        better = value if self.course.primary.direction != "lower" else -value
        self.log("validation", better, sync_dist=group.size() > 1)  # the same for all: so Lightning does not warn

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        group.add_up_gradients([weight for part in optimizer.param_groups for weight in part["params"]])

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
        total = self.course.plan.epochs * self.steps_per_epoch
        factor = partial(schedule_factor, schedule=self.recipe.schedule, warmup=warmup, total=total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = [dataclasses.asdict(one) for one in self.history]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = history_in(checkpoint, self.course.plan.name)


def _put_together(batch: Batch) -> Batch:
    """Return all of a batch, given this process's share."""
    inputs, labels, count = batch
    return group.whole(inputs, count), group.whole(labels, count), count


def _compiled(model: nn.Module) -> Any:
    from torch._inductor import config
    from tqdm import tqdm

    # A fit is ended, not waited for: it must hold neither a pool of processes nor a semaphore, which the compiler's
    # progress bars take one of.
    config.compile_threads = 1
    tqdm.set_lock(threading.RLock())
    return torch.compile(model)


def history_in(state: Mapping[str, Any], fit: str) -> list[EpochEnded]:
    """Return the epochs that a checkpoint's `state` tells of, as those of `fit`."""
    return [dataclasses.replace(EpochEnded(**one), fit=fit) for one in state["history"]]


def blank(tensor: Tensor) -> Tensor:
    """Return what `tensor` (B, …) would be for no samples."""
    return torch.zeros(0, *tensor.shape[1:], dtype=tensor.dtype, device=tensor.device)


def pass_back(loss: Tensor) -> None:
    """Add the gradients of a piece to those of the pieces before."""
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own


class _Mean:
    """A mean over all processes of a group, read once, whereupon it begins anew."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0.0

    def add(self, value: float, *, weight: float = 1.0) -> None:
        self.total, self.weight = self.total + value * weight, self.weight + weight

    def take(self) -> float:
        total, weight = group.add_up(self.total, self.weight)
        mean = total / weight if weight else 0.0
        self.total, self.weight = 0.0, 0.0
        return mean
