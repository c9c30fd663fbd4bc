"""What a contestant costs: parameters, multiply-accumulates, samples per second, peak memory."""

from __future__ import annotations

import copy
import re
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from whitebench.errors import WhitebenchError
from whitebench.modes import evaluating

if TYPE_CHECKING:
    from whitebench.specs import Shape


class CostError(WhitebenchError):
    """A cost that cannot be counted for this model."""


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, trainable or not; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, shape: Shape) -> int:
    """Return the multiply-accumulates of one sample's forward pass, in evaluation mode.

    Matrix products, convolutions and attention count; elementwise work does not. `model` is the bare
    module, neither compiled nor wrapped for several devices; it is left as it was. The count is taken on
    a copy on the meta device, because torch's counter sees nothing of scaled_dot_product_attention on a
    CPU, and halved, because the counter takes a multiply-accumulate for two operations.

    Raises:
        CostError: the model cannot run without its values, or uses an operation unknown to the meta device.
    """
    # A module may keep a tensor of its last training pass (for its penalty), which torch refuses to copy.
    kept = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    memo = {id(tensor): tensor.detach() for tensor in kept if not tensor.is_leaf}
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
    try:
        twin = copy.deepcopy(model, memo).to("meta").eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            twin(torch.empty(1, *shape, dtype=dtype, device="meta"))
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise CostError(
            f"the multiply-accumulates of {type(model).__name__} cannot be counted: its forward pass "
            f"does not run on meta tensors ({type(error).__name__}: {reason})"
        ) from error
    return int(counter.get_total_flops()) // 2


def inference_rate(model: nn.Module, inputs: Tensor, *, warm_ups: int = 2, repeats: int = 9) -> float:
    """Return samples per second of forward passes over `inputs`, one batch on the model's device.

    The median of `repeats` passes after `warm_ups` that do not count (the first pass of a process is up to
    many times slower); evaluation mode, which is undone afterwards, and no gradients.
    """
    seconds = []
    with evaluating(model), torch.inference_mode():
        for _ in range(warm_ups + repeats):
            started = _clock(inputs.device)
            model(inputs)
            seconds.append(_clock(inputs.device) - started)
    return len(inputs) / statistics.median(seconds[warm_ups:])


class PeakMemory:
    """How much memory work took at its peak, above what was held when this object was made.

    On a CUDA device: the device memory of torch's tensors. Elsewhere: this process's own (anonymous)
    resident memory. Pages of libraries are left out: a forked process counts each as its own when it first
    touches it, which added some 45 MiB to every fit. Making one resets the peak of the whole process (or
    device), so only the latest of several tells the truth.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
        else:
            _reset_resident_peak()
            self._start = _anonymous_peak()

    def above_start(self) -> int:
        """Return bytes at the peak so far, less bytes at the start.

        Where the system cannot reset a process's peak (macOS, some containers) this is the growth beyond the
        highest level before the start: a lower bound, exact in a process that held no more before.
        """
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._start
        return max(_anonymous_peak() - self._start, 0)


def forget_peak(device: torch.device) -> None:
    """Begin anew with the peak of this process, or device, as if nothing had been before."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_resident_peak()


def _clock(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def _reset_resident_peak() -> None:
    """Set VmHWM to the memory resident now; `5` is the kernel's word for it (proc_pid_clear_refs(5))."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _anonymous_peak() -> int:
    """Return the largest anonymous resident memory of this process since its start or the last reset, in bytes.

    Linux keeps a peak of all resident memory (VmHWM) alone; pages of files, which only come and stay, are taken
    off at their present number (proc_pid_status(5)).
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        # getrusage(2) counts in kilobytes, on macOS in bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    kilobytes = {
        name: int(number) for name, number in re.findall(r"^(VmHWM|RssFile|RssShmem):\s+(\d+) kB", status, re.MULTILINE)
    }
    return (kilobytes["VmHWM"] - kilobytes["RssFile"] - kilobytes["RssShmem"]) * 1024
