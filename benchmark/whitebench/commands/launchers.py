"""What starts a run's fits, and on which devices: chosen from the options, and refused before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from whitebench.errors import WhitebenchError
from whitebench.wording import plain

if TYPE_CHECKING:
    from whitebench.catalog import Catalog
    from whitebench.crew import Crew
    from whitebench.launching import AnyLauncher, LaunchOptions
    from whitebench.ledger import PlannedCell
    from whitebench.suite import Suite


def launcher_text(launcher: str, ray_address: str | None) -> str:
    """Return the launcher with its options, the address of `--ray-address` among them."""
    if ray_address is None:
        return launcher
    if launcher == "ray":
        return f"ray[address={ray_address}]"
    if launcher.startswith("ray["):
        options = launcher.removeprefix("ray[").removesuffix("]")
        return f"ray[{options},address={ray_address}]" if options.strip() else f"ray[address={ray_address}]"
    raise WhitebenchError(f"--ray-address is for --launcher ray, and this is --launcher {plain(launcher, 100)}")


def need_one_machine(launcher: str, machines: int, members: int) -> None:
    """Refuse a launcher other than `local` where several processes of this command are to share each fit."""
    if launcher == "local":
        return
    name = f"--launcher {plain(launcher.partition('[')[0], 100)}"
    if machines > 1:
        raise WhitebenchError(f"--num-nodes {machines}: {name} keeps each fit on one machine: leave out one of the two")
    if members > 1:
        raise WhitebenchError(
            f"{name}: torchrun or srun started this command {members} times, to share each fit: leave it out, or start "
            "the command once"
        )


def launcher_of(
    text: str, catalog: Catalog, asked: LaunchOptions, crew: Crew | None, *, in_process: bool
) -> AnyLauncher:
    """Return what starts the fits."""
    from whitebench.names import configured, parse_name

    if in_process:
        from whitebench.here import Here

        return Here()
    if crew is not None:
        from whitebench.crew import CrewLauncher

        return CrewLauncher(crew, threads=asked.threads)
    spec = catalog.launcher(parse_name(text)[0]).spec
    return spec.build(configured("launcher", text, spec.config), asked)


def refuse_missing_devices(asked: LaunchOptions, crew: Crew | None, suite: Suite, *, is_here: bool = True) -> int:
    """Refuse devices that are not here, where that counts; return how many a fit has on all machines."""
    from whitebench.devices import refuse_idle, refuse_missing

    here, everywhere = (crew.muster.local_members, crew.muster.members) if crew else (1, 1)
    if is_here:
        refuse_missing(asked.devices * here, asked.accelerator)
    refuse_idle(asked.devices * everywhere, suite.budget)
    return asked.devices * everywhere


def how_to_start(machines: int, devices: int) -> str:
    """Return what to type where a fit is to be shared by machines on which nothing was started."""
    return (
        f"--num-nodes {machines}: start the same command on each of the machines, by "
        f"`torchrun --nnodes {machines} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint FIRST:29500 "
        f"--no-python whitebench run …`, or by `srun --nodes {machines} --ntasks-per-node {devices} whitebench run …`"
    )


def need_one_cell(cells: Sequence[PlannedCell], *, devices: int) -> None:
    """Refuse what `--in-process` cannot do."""
    if devices > 1:
        raise WhitebenchError("--in-process trains in this very process, which takes one device: leave out --devices")
    if len(cells) != 1:
        one = cells[0].name
        raise WhitebenchError(
            f"--in-process trains one cell, and this selects {len(cells)}: narrow it, "
            f"as in -m {one.contestant} -t {one.task} --seeds {one.seed}-{one.seed}"
        )
