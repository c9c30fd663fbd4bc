"""Plugins that do on import what no plugin should: each is turned away with its reason, and costs no other anything."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Type, person
from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import DuplicateNameError, WhitebenchError
from whitebench.events import SuiteEnded
from whitebench.fit import FitPlan, Fitted, Pruned
from whitebench.launch import Launcher, RunningFit, wait_for
from whitebench.result import Failure

GOOD = """
from dataclasses import dataclass
from whitebench import ModelSpec, Reference, hookimpl

@dataclass(frozen=True, kw_only=True)
class Config:
    size: int = 4

def build(config, shape, classes):
    raise AssertionError("listing builds nothing")

def spec(name="mine", summary="A model.", **more):
    return ModelSpec(**{"name": name, "summary": summary, "config": Config, "build": build, "head": "head", **more})

@hookimpl
def register_models():
    return [spec()]
"""


def with_spec(expression: str, before: str = "") -> str:
    return GOOD.replace("@hookimpl", f"{before}\n@hookimpl").replace("[spec()]", f"[{expression}]")


def once_loaded(statement: str) -> str:
    return f"{GOOD}\n{statement}\n"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHITEBENCH_PLUGIN_SECONDS", "2")


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Catalog]:
    """Return a function that loads a hostile plugin between two good neighbours, and sees that they are there."""

    def write_and_load(text: str, *, is_vetted: bool = True) -> Catalog:
        paths = [tmp_path / name / "plugin.py" for name in ("left", "hostile", "right")]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_text(GOOD.replace('"mine"', f'"{path.parent.name}"'), encoding="utf-8")
        paths[1].write_text(text, encoding="utf-8")
        catalog = load_catalog(paths, is_vetted=is_vetted)
        assert {"left", "right", "vit"} <= catalog.entries["model"].keys()
        return catalog

    return write_and_load


def reason(catalog: Catalog) -> str:
    """Return why the one plugin was turned away, which is one line that a terminal takes as it is."""
    (lost,) = catalog.quarantined
    assert lost.owner.plugin.endswith("hostile/plugin.py")
    assert lost.reason.isprintable()
    assert len(lost.reason) < 1000
    assert len(lost.traceback) < 100_000
    return lost.reason


EVIL = """
class Evil(Exception):
    def __str__(self): raise Evil
    __repr__ = __str__
"""
LOUD = """
class Loud:
    def __repr__(self): return "\\x1b[31m" + "x" * 10**7
"""

CLOSING = """
import os
for number in map(int, os.listdir("/proc/self/fd")):
    place = f"/proc/self/fd/{number}"
    if number > 2 and os.path.lexists(place) and os.readlink(place).startswith("/dev/null"):
        os.close(number)
"""

# What a process of its own is needed for: the same in the harness's own process would end it, or hang it for good.
DEADLY = [
    ("import os; os._exit(0)", "it ended the process with exit code 0 while being loaded"),
    ("import os; os._exit(3)", "it ended the process with exit code 3 while being loaded"),
    ("import os\nif os.fork(): os._exit(3)", "it ended the process with exit code 3 while being loaded"),
    ("import os; os.kill(os.getpid(), 9)", "its process was ended by SIGKILL while it was being loaded (the system"),
    ("import ctypes; ctypes.string_at(0)", "its process was ended by SIGSEGV while it was being loaded"),
    ("import re; re.match('(a+)+$', 'a' * 60 + 'b')", "it was not loaded after 2 s ({file}:1): if it needs longer"),
    ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "it was not loaded after 2 s ({file}:"),
    ("print('x' * 2**21)", "it printed more than 1 MiB while being loaded"),
    ("while True: print('all work and no play' * 100)", "it printed more than 1 MiB while being loaded"),
    ("import os; os.closerange(0, 9999)", "it ended the process with exit code 0 while being loaded"),
    (CLOSING, "while being loaded it closed files that it had not opened"),
    ("input('your password: ')", "EOFError: EOF when reading a line"),
    ("import shutil; shutil.rmtree('{folder}')", "while being loaded it deleted {folder}"),
    ("import os; os.remove(__file__)", "while being loaded it deleted {file}"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", "KeyboardInterrupt"),
    ("import threading, time; threading.Thread(target=time.sleep, args=(60,), name='t').start()",
     "while being loaded it left a thread running that is no daemon ('t')"),
    ("import sys; sys.modules['torch'] = sys", "while being loaded it exchanged the module torch, which"),
    ("import torch; torch.get_default_dtype = None", "while being loaded it broke torch's default dtype (TypeError: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), DEADLY, ids=[text[:40] for text, _ in DEADLY])
def test_what_would_end_or_spoil_the_command_is_done_in_a_process_of_its_own(
    load: Callable[..., Catalog], tmp_path: Path, text: str, said: str
) -> None:
    places = {"{folder}": str(tmp_path / "hostile"), "{file}": str(tmp_path / "hostile" / "plugin.py")}
    for place, path in places.items():
        text, said = text.replace(place, path), said.replace(place, path)
    with Path("/dev/null").open():
        assert reason(load(text + "\n" + GOOD)).startswith(said)


CHANGES = [
    ("import torch; torch.set_default_dtype(torch.float64)",
     "torch's default dtype from 'torch.float32' to 'torch.float64', which all that runs in the process would feel"),
    ("import torch; torch.set_default_device('meta')", "torch's default device from 'cpu' to 'meta', which"),
    ("import torch; torch.use_deterministic_algorithms(True)", "torch's deterministic setting from "),
    ("import torch; torch.set_float32_matmul_precision('medium')", "torch's precision of float32 products from"),
    ("import torch; torch.set_grad_enabled(False)", "whether torch records gradients from True to False, which"),
    ("import os; os.chdir('/')", "the working folder from "),
    ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)", "who hears SIGINT from "),
    ("import signal; signal.signal(signal.SIGTERM, print)", "who hears SIGTERM from "),
]  # fmt: skip

# What the door itself turns away, also where there is no trial: on macOS, and in a fit's process.
ODD = [
    *((once_loaded(deed), f"while being loaded it changed {what}") for deed, what in CHANGES),
    ("import time; time.sleep(60)", "it was not loaded after 2 s ({file}:1): if it needs longer, set WHITEBENCH_"),
    ("raise SystemExit('bye\\n' * 10**6)", "it called sys.exit(bye bye "),
    ("raise KeyboardInterrupt", "it raised KeyboardInterrupt, and nobody typed Ctrl-C"),
    ("class Odd(BaseException): pass\nraise Odd('gone')", "Odd: gone"),
    ("raise RuntimeError('\\x1b[2J\\x07' + 'x' * 10**7)", r"RuntimeError: \x1b[2J\x07xxx"),
    (EVIL + "raise Evil", "Evil: <Evil, whose __str__ raised Evil>"),
    ("raise type('\\x1b' * 10**6, (Exception,), {})('x')", r"\x1b\x1b"),
    (with_spec("*[spec()] * 10**6"), "register_models returned 1,000,000 Specs: at most 10,000 are taken"),
    (GOOD.replace("return [spec()]", "return None"), "register_models returned a NoneType: it must return a list"),
    (GOOD.replace("return [spec()]", "while True: pass"), "it was not loaded after 2 s ({file}:"),
    (with_spec("spec('../x')"), "model '../x': a name is up to 64 lower-case letters"),
    (with_spec("spec('x\\x1b[2J')"), r"model 'x\x1b[2J': a name is up to 64 lower-case letters"),
    (with_spec("spec('x\\n')"), r"model 'x\n': a name is up to 64 lower-case letters"),
    (with_spec("spec('x' * 10**8)"), "model 'xxx"),
    (with_spec("spec(Name('x'))", "class Name(str): pass"), "model 'x': a name is up to 64 lower-case letters"),
    (with_spec("spec(summary='two\\nlines')"), "model 'mine': summary must be one line of up to 500 printable"),
    (with_spec("spec(summary='\\x1b]0;title\\x07')"), "model 'mine': summary must be one line of up to 500 printable"),
    (with_spec("spec(summary='a\\u202eb')"), "model 'mine': summary must be one line of up to 500 printable"),
    (with_spec("spec(summary='x' * 10**8)"), "model 'mine': summary must be one line of up to 500 printable"),
    (with_spec("spec(summary=Loud())", LOUD), "model 'mine': summary must be one line of up to 500 printable"),
    (with_spec("spec(reference=Reference(title='a\\tb', url=''))"), "model 'mine': reference.title must be one line"),
    (with_spec("spec(reference='see our paper')"), "model 'mine': reference must be a Reference, got 'see our paper'"),
    (with_spec("spec(config=Loud())", LOUD), r"model 'mine': config must be a frozen dataclass, got \x1b[31mxxx"),
    (with_spec("spec(config=Evil())", EVIL), "model 'mine': config must be a frozen dataclass, got <Evil"),
    (with_spec("Evil()", EVIL), "register_models returned a list with a Evil, which is no ModelSpec"),
    (with_spec("Sub(**vars(spec()))", "class Sub(ModelSpec):\n  summary = property(lambda self: 1 / 0)\n"
               "  def __init__(self, **more): pass"),
     "register_models returned a list with a Sub, a subclass of ModelSpec: make it one itself"),
    (with_spec("Sub(**vars(spec()))", "class Sub(ModelSpec):\n  def __hash__(self): 1 / 0\n  __eq__ = __hash__"),
     "register_models returned a list with a Sub, a subclass of ModelSpec: make it one itself"),
    (GOOD.replace("return [spec()]", "one = spec(); object.__setattr__(one, 'name', '../x'); return [one]"),
     "model '../x': a name is up to 64 lower-case letters"),
    (GOOD.replace("return [spec()]", "one = spec(); object.__delattr__(one, 'name'); return [one]"),
     "AttributeError: 'ModelSpec' object has no attribute 'name'"),
    (EVIL + GOOD.replace("size: int = 4", "size: int = 4\n    def __post_init__(self): raise Evil"),
     "model 'mine' with its defaults: its config raised Evil: <Evil, whose __str__ raised Evil>"),
    (with_spec("spec(build=Build())",
               "class Build:\n  def __call__(self): pass\n  __module__ = property(lambda _: 1 / 0)"),
     "ZeroDivisionError: division by zero"),
]  # fmt: skip


@pytest.mark.parametrize("is_vetted", [True, False])
@pytest.mark.parametrize(("text", "said"), ODD, ids=[f"{number}-{said[:40]}" for number, (_, said) in enumerate(ODD)])
def test_it_is_turned_away_with_its_reason_and_leaves_nothing_behind(
    load: Callable[..., Catalog], tmp_path: Path, text: str, said: str, is_vetted: bool
) -> None:
    before = shared()
    said = said.replace("{file}", str(tmp_path / "hostile" / "plugin.py"))
    assert reason(load(text, is_vetted=is_vetted)).startswith(said)
    assert shared() == before


def shared() -> tuple[object, ...]:
    return (
        Path.cwd(), sys.stdout, sys.stderr, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
        torch.zeros(1).dtype, torch.zeros(1).device, torch.zeros(1, requires_grad=True).sum().requires_grad,
        torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision(),
    )  # fmt: skip


@pytest.mark.parametrize("is_vetted", [True, False])
def test_seeds_and_threads_that_a_module_sets_are_put_back_without_a_word(
    load: Callable[..., Catalog], is_vetted: bool
) -> None:
    def draw() -> tuple[object, ...]:
        shared = np.random.rand()  # noqa: NPY002  # the generator that everyone shares
        return random.random(), shared, torch.rand(1).item(), torch.get_num_threads()

    def seed() -> None:
        random.seed(1)
        np.random.seed(2)  # noqa: NPY002  # the generator that everyone shares
        torch.manual_seed(3)

    seed()
    expected = draw()
    seed()
    deeds = "import random, numpy, torch; random.seed(7); numpy.random.seed(7); torch.manual_seed(7)"
    catalog = load(once_loaded(f"{deeds}; torch.set_num_threads(torch.get_num_threads() + 3)"), is_vetted=is_vetted)
    assert (catalog.quarantined, catalog.model("mine").spec.name) == ((), "mine")
    assert draw() == expected


def test_what_a_plugin_keeps_of_its_specs_reaches_nobody(load: Callable[..., Catalog]) -> None:
    keep = GOOD.replace("return [spec()]", "KEPT.append(spec(search={})); return KEPT").replace(
        "@data", "KEPT = []\n@data", 1
    )
    entry = load(keep).model("mine")
    (kept,) = sys.modules[entry.modules[0]].KEPT
    object.__setattr__(kept, "name", "../x")
    kept.search["size"] = None
    assert (entry.spec.name, entry.spec.search) == ("mine", {})


def test_what_it_prints_goes_to_stderr_and_streams_that_it_keeps_stay_open(
    load: Callable[..., Catalog], capfd: pytest.CaptureFixture[str]
) -> None:
    text = "import logging, os, sys\nprint('python')\nos.system('echo shell')\nOUT, ERR = sys.stdout, sys.stderr\n"
    entry = load(text + GOOD).model("mine")
    heard = capfd.readouterr()
    assert heard.out == ""
    assert {"python", "shell"} <= set(heard.err.split())
    module = sys.modules[entry.modules[0]]
    assert (module.OUT.closed, module.ERR.closed) == (False, False)


def test_a_first_party_name_that_is_taken_is_the_only_one_that_cannot_be_used(load: Callable[..., Catalog]) -> None:
    paths = with_spec("spec('crate'), spec('mine')")
    catalog = load(paths)
    assert catalog.model("mine").spec.name == "mine"
    assert catalog.model("vit").owner.distribution == "whitebench"
    with pytest.raises(
        DuplicateNameError, match=r"2 owners, whitebench .* and local file .*: uninstall one of them or"
    ):
        catalog.model("crate")


@pytest.mark.parametrize("name", ["torch", "whitebench", "whitebench_models", "numpy", "json"])
def test_a_local_file_called_like_a_library_shadows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sys.modules[name]
    (tmp_path / f"{name}.py").write_text(f"import {name}\nassert {name}.__file__ != __file__\n{GOOD}", encoding="utf-8")
    assert load_catalog([Path(f"{name}.py")]).model("mine").owner.plugin == str(tmp_path / f"{name}.py")
    assert sys.modules[name] is before


def test_relative_files_are_found_though_the_plugin_before_them_leaves_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("leaves.py").write_text("import os; os.chdir('/')", encoding="utf-8")
    Path("stays.py").write_text(GOOD, encoding="utf-8")
    for is_vetted in (True, False):
        assert (
            load_catalog([Path("leaves.py"), Path("stays.py")], is_vetted=is_vetted).model("mine").spec.name == "mine"
        )
    assert Path.cwd() == tmp_path


def test_the_time_a_plugin_may_take_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHITEBENCH_PLUGIN_SECONDS", "soon")
    with pytest.raises(WhitebenchError, match="WHITEBENCH_PLUGIN_SECONDS='soon': must be a number of seconds above 0"):
        load_catalog()


def test_what_a_plugin_starts_on_import_is_ended_with_its_trial(load: Callable[..., Catalog], tmp_path: Path) -> None:
    note = tmp_path / "note"
    child = f"import subprocess; p = subprocess.Popen(['sleep', '600']); open({str(note)!r}, 'w').write(str(p.pid))"
    assert reason(load(f"{child}\nimport os; os._exit(1)")).endswith("exit code 1 while being loaded")
    pid = int(note.read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "(sleep) Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


OBSERVER = "from whitebench import hookimpl\nHEARD = []\n@hookimpl\ndef observe(event):\n    HEARD.append(event)\n    "
ENDED = SuiteEnded(suite="tiny", finished=1, failed=0, is_interrupted=False, seconds=1.0)


def test_an_observer_that_takes_too_long_is_told_nothing_more(
    load: Callable[..., Catalog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("whitebench.catalog.PATIENCE", 0.2)
    catalog = load(OBSERVER + "import time; time.sleep(60)")
    (said,) = catalog.tell(ENDED)
    assert (
        said
        == f"observer local file ({tmp_path / 'hostile' / 'plugin.py'}) took more than 0.2 s and is told nothing more"
    )
    assert catalog.tell(ENDED) == []


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("raise KeyboardInterrupt", "FalseAlarmError: it raised KeyboardInterrupt, and nobody typed Ctrl-C"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError('\\x1b[2J' + 'x' * 10**7)", r"RuntimeError: \x1b[2Jxxx"),
        (
            "raise type('Odd', (BaseException,), {'__str__': lambda self: 1 / 0})",
            "Odd: <Odd, whose __str__ raised Zero",
        ),
    ],
)
def test_an_observer_that_raises_is_noted_in_a_line(load: Callable[..., Catalog], deed: str, said: str) -> None:
    catalog = load(OBSERVER + deed)
    for _ in range(2):
        (complaint,) = catalog.tell(ENDED)
        assert complaint.partition(" raised ")[2].startswith(said)
        assert complaint.isprintable()


def test_a_ctrl_c_typed_while_an_observer_is_told_is_no_complaint(load: Callable[..., Catalog]) -> None:
    catalog = load(OBSERVER + "import signal; signal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        catalog.tell(ENDED)


# The command itself, in a process of its own.

COMMAND = [
    ("import time; time.sleep(60)", "it was not loaded after 3 s"),
    ("import os; os._exit(0)", "it ended the process with exit code 0"),
    ("raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
    ("print('\\x1b[2J' + 'x' * 2**22)", "it printed more than 1 MiB"),
    (once_loaded("import torch; torch.set_default_dtype(torch.float16)"), "it changed torch's default dtype"),
    (with_spec("*[spec()] * 10**6"), "1,000,000 Specs"),
    (with_spec("spec('../x')"), "model '../x'"),
    ("class Odd(Exception):\n  def __str__(self): raise self\nraise Odd", "Odd: <Odd, whose __str__ raised Odd>"),
    ("import os, shutil; shutil.rmtree(os.getcwd())", "while being loaded it deleted "),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--json",)])
def test_the_command_line_stays_usable(type_in: Type, tmp_path: Path, option: tuple[str, ...]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    names = [f"hostile_{number}.py" for number in range(len(COMMAND))]
    for name, (text, _) in zip(names, COMMAND, strict=True):
        (here / name).write_text(f"print('on stdout')\n{text}", encoding="utf-8")
    plugins = [word for name in names for word in ("--plugin", name)]
    done = type_in("whitebench", "list", *plugins, *option, env={"WHITEBENCH_PLUGIN_SECONDS": "3"}, cwd=here)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) + len(done.stderr) < 100_000
    assert "\x1b" not in done.stdout + done.stderr
    if option:
        listed = json.loads(done.stdout)
        reasons = [lost["reason"] for lost in listed["quarantined"]]
        assert {"vit", "crate"} <= {item["name"] for item in listed["items"]}
    else:
        reasons = [line for line in done.stdout.splitlines() if line.startswith("not loaded: local file")]
        assert {"vit", "crate"} <= set(done.stdout.split())
    assert len(reasons) == len(COMMAND)
    assert all(said in one for one, (_, said) in zip(reasons, COMMAND, strict=True)), reasons


@pytest.mark.slow
def test_ctrl_c_while_a_plugin_is_loaded_ends_the_command(tmp_path: Path) -> None:
    plugin, note = tmp_path / "slow.py", tmp_path / "note"
    plugin.write_text(f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    command = ["whitebench", "list", "--plugin", str(plugin)]
    with subprocess.Popen(command, env=person({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        deadline = time.monotonic() + 60
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        listing.send_signal(signal.SIGINT)
        _, complaint = listing.communicate(timeout=30)
    assert (listing.returncode, complaint.strip()) == (130, b"")
    assert not Path(f"/proc/{note.read_text()}").exists()


# In a fit's process.


def outcome_of(fit: RunningFit) -> object:
    """Answer everything with go and return how the fit ended."""
    while True:
        wait_for([fit], 1.0)
        said = fit.receive()
        if isinstance(said, Fitted | Pruned | Failure):
            fit.end()
            return said
        if said is not None:
            fit.answer("go")


@pytest.mark.slow
def test_a_hostile_neighbour_changes_no_number_of_a_fit(
    launcher: Launcher, make_plan: Callable[..., FitPlan], plugin: Path, tmp_path: Path
) -> None:
    neighbours = []
    for number, deed in enumerate((
        "import random, numpy, torch; random.seed(7); numpy.random.seed(7); torch.manual_seed(7)",
        "import torch; torch.set_num_threads(2); torch.set_default_dtype(torch.float64)",
        "import torch; torch.set_grad_enabled(False); raise KeyboardInterrupt",
    )):  # fmt: skip
        neighbours.append(tmp_path / f"neighbour_{number}.py")
        neighbours[-1].write_text(deed, encoding="utf-8")
    alone, crowded = (
        outcome_of(launcher.start(make_plan(folder=folder, plugins=plugins)))
        for folder, plugins in (("alone", [plugin]), ("crowded", [*neighbours, plugin]))
    )
    assert isinstance(alone, Fitted)
    assert isinstance(crowded, Fitted)
    assert (crowded.scores, crowded.weights_sha256, crowded.validation_loss) == (
        alone.scores,
        alone.weights_sha256,
        alone.validation_loss,
    )


@pytest.mark.slow
def test_a_fit_loads_none_but_the_plugins_of_what_it_names(
    launcher: Launcher, make_plan: Callable[..., FitPlan], plugin: Path, tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os; os._exit(3)", encoding="utf-8")
    gone = tmp_path / "gone.py"
    owners = [str(plugin), "whitebench_objectives"]
    assert isinstance(outcome_of(launcher.start(make_plan(plugins=[deadly, gone, plugin], owners=owners))), Fitted)


@pytest.mark.slow
def test_a_file_called_torch_in_the_working_folder_is_not_taken_for_torch_by_a_fit(
    type_in: Type, tmp_path: Path, write_suite: Callable[..., Path], plugin: Path
) -> None:
    (tmp_path / "torch.py").write_text(GOOD, encoding="utf-8")
    suite = write_suite(seeds=1, trials=0, epochs=1)
    done = type_in("whitebench", "run", str(suite), "--plugin", str(plugin), "--plugin", "torch.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 cell done" in done.stdout
