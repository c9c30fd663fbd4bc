"""What fits are asked to compute on, and whether this machine has it: said before anything starts."""

from __future__ import annotations

import torch

from whitebench.budget import Budget
from whitebench.errors import WhitebenchError
from whitebench.launching import Accelerator


def refuse_missing(devices: int, accelerator: Accelerator) -> None:
    """Refuse devices of a fit that are not on this machine.

    Args:
        devices: of a fit on this machine.
        accelerator: `auto` takes GPUs where there are any.

    Raises:
        WhitebenchError: says what is asked for, what is here, and what to do.
    """
    if accelerator == "gpu" and not torch.accelerator.is_available():
        raise WhitebenchError(
            "--accelerator gpu: torch sees no GPU here; `whitebench doctor` says why, and `--accelerator cpu` trains "
            "on the processor"
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    is_on_gpus = accelerator == "gpu" or (accelerator == "auto" and gpus > 0)
    if is_on_gpus and devices > max(gpus, 1):
        here = f"{gpus} GPU{'' if gpus == 1 else 's'}"
        raise WhitebenchError(
            f"--devices {devices}: torch sees {here} here; take as many, or train on the processor with "
            "--accelerator cpu"
        )


def refuse_idle(devices: int, budget: Budget) -> None:
    """Refuse more devices of a fit than share a batch.

    Raises:
        WhitebenchError: says how many do.
    """
    if devices > budget.batch_size:
        raise WhitebenchError(
            f"{devices} devices: the suite's batches of {budget.batch_size} samples leave some without any; take "
            f"{budget.batch_size} at most"
        )
