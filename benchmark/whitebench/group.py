"""The processes that train and measure one model together: who each is, what its share is, what they tell each other.

A process alone is a group of one: for it every function here gives back what it was given. Of N samples, process r of
W has r, r + W, r + 2 W, …: each sample is had exactly once, and shares differ by one sample at most.

What is on the processor travels by gloo, what is on a GPU by NCCL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from whitebench.errors import PeerError
from whitebench.quotation import told

if TYPE_CHECKING:
    from torch import Tensor, nn

Said = TypeVar("Said")

PATIENCE = timedelta(days=20)  # in milliseconds, below 2^31
"""For the others of the group: a trial may wait for days to hear whether it is pruned. It is the conductor who
notices a hang."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of a group's processes this one is."""

    rank: int = 0
    size: int = 1


_here = [Place()]


def join(rank: int, size: int, local_rank: int, store: Any = None) -> None:
    """Become one of a group.

    Args:
        rank: this process's number in it, from 0.
        size: of the group.
        local_rank: its number on its machine: that of its GPU among those that are visible.
        store: where they meet, a `torch.distributed.Store`; by default the one that the environment tells of.
    """
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())  # SLURM may show each process but its own
        backend = "cpu:gloo,cuda:nccl"
    given: dict[str, Any] = {} if store is None else {"store": store, "rank": rank, "world_size": size}
    dist.init_process_group(backend, timeout=PATIENCE, **given)
    _here[:] = [Place(rank=rank, size=size)]


def leave() -> None:
    """Be alone again."""
    if size() > 1:
        dist.destroy_process_group()
        _here[:] = [Place()]


def rank() -> int:
    """Return this process's number, from 0."""
    return _here[0].rank


def size() -> int:
    """Return the number of processes, each with a device of its own."""
    return _here[0].size


def is_first() -> bool:
    """Return whether this is the one that speaks for all and writes files."""
    return _here[0].rank == 0


def device() -> torch.device:
    """Return the device of this process."""
    is_cuda = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if is_cuda else torch.device("cpu")


def share(rows: Tensor) -> Tensor:
    """Return this process's share of `rows` (N, …)."""
    return rows if size() == 1 else taken(rows, slice(rank(), None, size()))


def share_of(count: int) -> int:
    """Return how many of `count` samples this process has."""
    return len(range(rank(), count, size()))


def rows(start: int, count: int) -> slice:
    """Return which samples of a split are those of this process from its `start`-th on, `count` of them."""
    return slice(rank() + start * size(), rank() + (start + count) * size(), size())


def taken(samples: Tensor, rows: slice) -> Tensor:
    """Return some rows of `samples` (N, …), one after the other in memory also where they did not lie so."""
    return samples[rows] if size() == 1 else samples[rows].contiguous()


def largest_share(count: int) -> int:
    """Return how many of `count` samples a process has at most."""
    return -(-count // size())


def batches(rows: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield this process's share of `rows` (N, …) in batches of its share of `batch_size`."""
    if size() == 1:
        yield from torch.split(rows, batch_size)
        return
    for part in torch.split(rows[rank() :: size()], largest_share(batch_size)):
        yield part.contiguous()


def whole(part: Tensor, count: int) -> Tensor:
    """Return what all have of `count` rows, in the order of the samples, given this process's share."""
    if size() == 1:
        return part
    padded = part.new_zeros(largest_share(count), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return torch.stack(parts, dim=1).flatten(0, 1)[:count]


def whole_with_gradient(part: Tensor, count: int) -> Tensor:
    """Return `whole`; going back, each process gets what all make of its rows, added up."""
    if size() == 1:
        return part
    gathered: Tensor = _Whole.apply(part, count)  # type: ignore[no-untyped-call]  # torch's own
    return gathered


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, part: Tensor, count: int) -> Tensor:
        return whole(part, count)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        total = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True).contiguous()
        dist.all_reduce(total)
        return share(total).to(gradient.dtype), None


def add_up_gradients(weights: Sequence[nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients; a weight that none has a gradient of keeps none."""
    if size() == 1:
        return
    # In the order of the weights, which all processes share: that of a set is each process's own.
    for kind in dict.fromkeys((weight.dtype, weight.device) for weight in weights):
        _add_up([weight for weight in weights if (weight.dtype, weight.device) == kind])


def _add_up(weights: Sequence[nn.Parameter]) -> None:
    parts = [weight.new_zeros(weight.numel()) if weight.grad is None else weight.grad.flatten() for weight in weights]
    has_gradient = weights[0].new_tensor([weight.grad is not None for weight in weights])
    total = torch.cat([*parts, has_gradient]).detach()
    dist.all_reduce(total)
    *parts, has_gradient = torch.split(total, [*(weight.numel() for weight in weights), len(weights)])
    for weight, part, is_had in zip(weights, parts, has_gradient.tolist(), strict=True):
        weight.grad = part.view_as(weight) if is_had else None


def add_up(*numbers: float) -> tuple[float, ...]:
    """Return the sum of each number over all processes."""
    if size() == 1:
        return numbers
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return tuple(total.tolist())


def make_equal(module: nn.Module) -> None:
    """Give every process the first one's weights and buffers."""
    if size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def first_says(ask: Callable[[], Said]) -> Said:
    """Return to all what `ask` answers to the first, who alone asks."""
    if size() == 1:
        return ask()
    said: list[Any] = [ask() if is_first() else None]
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    answer: Said = said[0]
    return answer


def together(ask: Callable[[Any], Said]) -> Callable[[Any], Said]:
    """Return a function with which all ask the same, of which the first alone is heard, and get the same answer."""
    return ask if size() == 1 else lambda question: first_says(lambda: ask(question))


def everyone_says(said: Said) -> list[Said]:
    """Return to all what each of them says, by rank."""
    if size() == 1:
        return [said]
    all_said: list[Any] = [None] * size()
    dist.all_gather_object(all_said, said)
    return all_said


def first_of(failures: Iterable[str | None]) -> str | None:
    """Return the failure of the lowest rank that has one."""
    return next((one for one in failures if one is not None), None)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Let the body's exception, raised in any process, be raised in all: none goes on and waits for the others.

    Raises:
        PeerError: it was raised in another process; says what.
    """
    if size() == 1:
        yield
        return
    raised: BaseException | None = None
    try:
        yield
    except (Exception, SystemExit) as error:
        raised = error
    failure = first_of(everyone_says(None if raised is None else told(raised)))
    if raised is not None:
        raise raised
    if failure is not None:
        raise PeerError(f"another of the {size()} devices raised {failure}")
