"""A fit as Lightning's module: the model, its objective and the recipe, step by step."""

from __future__ import annotations

import dataclasses
import math
import operator
import threading
from collections.abc import Mapping
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor, nn

from whitebench.augmentation import build_augmentation
from whitebench.course import Course, feature_width
from whitebench.diagnosis import find_in_gradients, find_in_step
from whitebench.errors import DivergedError
from whitebench.events import EpochEnded
from whitebench.optimisation import build_optimiser, mix_up, schedule_factor, soft_targets
from whitebench.pulse import beat
from whitebench.readout import Reader
from whitebench.scoring import headline, ranking
from whitebench.seeds import seed_everything

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from whitebench.evaluation import Subject
    from whitebench.readout import Predictor
    from whitebench.specs import Samples


class Module(lightning.LightningModule):
    """The model, its objective and the recipe, as Lightning wants to see them."""

    def __init__(self, course: Course, subject: Subject, training: Samples) -> None:
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
        self.history: list[EpochEnded] = []
        self.is_pruned = False
        self.last_finite: float | None = None
        self.losses, self.norms, self.seconds = _Mean(), _Mean(), 0.0
        self.validation_losses = _Mean()
        self.features: Tensor | None = None
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

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective, a scalar, and the logits (B, C)."""
        logits = self.trained[0](inputs) if self.training else self.model(inputs)
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
        if self.augmentation is not None:
            inputs = self.augmentation(inputs)
        targets = soft_targets(labels, self.course.task.classes, self.recipe.label_smoothing)
        if self.recipe.mixup:
            inputs, targets = mix_up(inputs, targets, self.recipe.mixup)
        loss, _ = self.loss(inputs, targets)
        terms = {f"objective {self.course.objective.name!r}": loss}
        if self.course.model.penalty is not None:
            terms["model's penalty"] = self.course.model.penalty(self.model)
        return terms

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
        total = self.course.plan.epochs * self.steps_per_epoch
        factor = partial(schedule_factor, schedule=self.recipe.schedule, warmup=warmup, total=total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = [dataclasses.asdict(one) for one in self.history]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = history_in(checkpoint, self.course.plan.name)


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
