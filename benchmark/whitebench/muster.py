"""Which of the processes of one command this one is, where torchrun or SLURM has started several."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from whitebench.errors import WhitebenchError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets."""


@dataclass(frozen=True, kw_only=True)
class Muster:
    """Which process of a crew this one is, and where they meet."""

    member: int
    members: int
    local_member: int
    """Its number among those on its machine."""
    local_members: int
    address: str
    port: int

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self | None:
        """Return what torchrun, or `srun`, says in the environment; None where it started no crew.

        Raises:
            WhitebenchError: SLURM has put unlike numbers of processes on its machines.
        """
        if all(environment.get(name) for name in VARIABLES):
            rank, size, local_rank, local_size = (int(environment[name]) for name in VARIABLES[:4])
            address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # srun sets it, sbatch alone does not
            rank, size, local_rank = (
                int(environment[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID")
            )
            local_size = _tasks_per_machine(environment)
            address = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
            port = int(environment.get("MASTER_PORT") or 20_000 + int(environment["SLURM_JOB_ID"]) % 10_000)
        else:
            return None
        if size == 1:
            return None
        return cls(
            member=rank,
            members=size,
            local_member=local_rank,
            local_members=local_size,
            address=address,
            port=port,
        )

    @property
    def machines(self) -> int:
        """How many there are."""
        return self.members // self.local_members

    def devices_each(self, devices: int | None, machines: int | None) -> int:
        """Return how many devices each process takes, given what is asked for: devices of a machine, and machines.

        Raises:
            WhitebenchError: that is not what was started.
        """
        if machines not in (None, self.machines):
            raise WhitebenchError(f"--num-nodes {machines}: the command was started on {self.machines}: leave it out")
        if self.local_members == 1:
            return devices or 1
        if devices not in (None, self.local_members):
            raise WhitebenchError(
                f"--devices {devices}: {self.local_members} processes were started on each machine, one for each "
                "device: leave it out, or start one process on each machine"
            )
        return 1


def _tasks_per_machine(environment: Mapping[str, str]) -> int:
    said = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE", "1")
    found = re.fullmatch(r"(\d+)(?:\(x\d+\))?", said)  # `2(x3)`: two on each of three
    if found is None:
        raise WhitebenchError(
            f"SLURM has started {said} processes on its machines, and needs as many on each: give srun "
            "--ntasks-per-node"
        )
    return int(found[1])


def _first_host(hosts: str) -> str:
    """Return the first of SLURM's hosts, `gpu[03-05,7],login` as `gpu03`."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", hosts)
    assert found is not None, hosts
    return found[1] + (found[2] or "")
