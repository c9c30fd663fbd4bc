"""Bad input, as it reaches people: one message that says what, where and what to do, and nothing is started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import psutil
import pytest

from whitebench import cli

GOOD = """\
name = "tiny"
version = 1
summary = "Two models."
primary = "accuracy"
tasks = ["digits"]
seeds = 3
metrics = ["accuracy", "sparsity", "coding-rate"]

[budget]
epochs = 2
batch_size = 32
trials = 1

[tuning]
seed = 1

[recipes.plain]
learning_rate = { value = 3e-3, low = 1e-3, high = 1e-2, log = true }

[[contestants]]
model = "vit[dim=8,heads=2]"

[[contestants]]
label = "crate"
model = "crate"
"""

SOLVING = """
name = "tiny"
version = 1
summary = "Claims."
primary = "accepted"
tasks = ["token-selection[draws=2]"]
seeds = 2
metrics = ["accepted"]

[[contestants]]
model = "token-selector"
"""

RANKED = 'primary = "{metric}"\ntasks = ["{task}"]\nseeds = {seeds}\nmetrics = ["{metric}"]'

Prepare = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One bad input."""

    name: str
    command: tuple[str, ...]
    words: tuple[str, ...]
    """What the message must hold: what is wrong, where, and what to do."""
    prepare: Prepare = lambda folder: None
    env: dict[str, str] = field(default_factory=dict)


def put(content: str | bytes, name: str = "bad.toml") -> Prepare:
    """Return what writes a file into the folder in which the command is given."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


HERE = put(GOOD)
READING = cycle(("plan", "run", "status", "run", "board"))
"""Whatever reads a suite must refuse it alike, so they take turns."""


def suite(name: str, content: str | bytes, *words: str) -> Bad:
    """Return a suite's file that is refused."""
    return Bad(name=name, command=(next(READING), "bad.toml"), words=("bad.toml", *words), prepare=put(content))


def edit(old: str, new: str, *words: str) -> Bad:
    """Return the good suite with one thing wrong."""
    assert old in GOOD, old
    return suite(f"{old[:30]} → {new[:60]}", GOOD.replace(old, new, 1), *words)


def against(old: str, new: str, *words: str) -> Bad:
    """Return the good suite with something that no plugin knows: it is called by its name."""
    assert old in GOOD, old
    told = ("suite tiny: ", *words)
    return Bad(name=new, command=(next(READING), "bad.toml"), words=told, prepare=put(GOOD.replace(old, new, 1)))


def solving(old: str, new: str, *words: str) -> Bad:
    """Return the good suite whose task solves itself, with something that does not go with it."""
    assert old in SOLVING, old
    prepare = put(SOLVING.replace(old, new, 1))
    return Bad(name=new, command=(next(READING), "bad.toml"), words=("suite tiny: ", *words), prepare=prepare)


def typed(*command: str, words: tuple[str, ...], env: dict[str, str] | None = None, prepare: Prepare = HERE) -> Bad:
    """Return a command that is refused for its own words."""
    name = " ".join((*(f"{key}={value}" for key, value in (env or {}).items()), *command))
    return Bad(name=name[:120], command=command, words=words, env=env or {}, prepare=prepare)


def override(text: str, *words: str) -> Bad:
    return typed(next(READING), "bad.toml", "--set", text, words=words)


MANY = "[" + ", ".join(map(str, range(100_000))) + "]"
NAME, EPOCHS, SEEDS, TASKS = 'name = "tiny"', "epochs = 2", "seeds = 3", 'tasks = ["digits"]'
RATE, VALUE, RECIPE = "{ value = 3e-3, low = 1e-3, high = 1e-2, log = true }", "value = 3e-3", "[recipes.plain]"
METRICS, PRIMARY, MODEL, LABEL = (
    '["accuracy", "sparsity", "coding-rate"]',
    'primary = "accuracy"',
    '"crate"\nmodel',
    'label = "crate"',
)
WHERE_RATE = "recipes.plain.learning_rate"

FILES = [
    # no suite at all
    Bad(name="no file", command=("plan", "none.toml"), words=("none.toml", "there is no such file")),
    Bad(name="nearly a file", command=("run", "bat.toml"), words=("bat.toml", "did you mean 'bad.toml'"),
        prepare=put(GOOD)),
    Bad(name="no folder", command=("run", "no/where.toml"), words=("no/where.toml", "there is no such file")),
    Bad(name="a folder", command=("plan", "bad.toml"), words=("bad.toml", "it is a folder", "give the path"),
        prepare=lambda folder: (folder / "bad.toml").mkdir()),
    Bad(name="a folder's name", command=("plan", "suites/"), words=("suites", "unknown suite", "path of a .toml")),
    Bad(name="here", command=("plan", "."), words=("is no suite", "smoke", ".toml")),
    Bad(name="above", command=("plan", ".."), words=("is no suite", "smoke", ".toml")),
    Bad(name="a pipe", command=("run", "bad.toml"), words=("bad.toml", "it is a pipe"),
        prepare=lambda folder: os.mkfifo(folder / "bad.toml")),
    Bad(name="a device without an end", command=("run", "bad.toml"), words=("bad.toml", "it is a device"),
        prepare=lambda folder: (folder / "bad.toml").symlink_to("/dev/zero")),
    Bad(name="a link to itself", command=("plan", "bad.toml"), words=("bad.toml", "cannot be read", "symbolic links"),
        prepare=lambda folder: (folder / "bad.toml").symlink_to("bad.toml")),
    Bad(name="a file as a folder", command=("plan", "bad.toml/x.toml"), words=("bad.toml/x.toml", "cannot be read"),
        prepare=put(GOOD)),
    Bad(name="a name too long", command=("plan", "x" * 5000 + ".toml"), words=("xxx", "cannot be read", "too long")),
    Bad(name="100 MB", command=("run", "bad.toml"), words=("bad.toml", "longer than 1,000 kB", "the right file"),
        prepare=lambda folder: os.truncate(_touched(folder / "bad.toml"), 100_000_000)),
    Bad(name="no suite's name", command=("run", "smok"), words=("unknown suite 'smok'", "did you mean 'smoke'")),
    Bad(name="a file without its ending", command=("run", "bad"), words=("unknown suite 'bad'", "'bad.toml'"),
        prepare=put(GOOD)),
    Bad(name="empty name", command=("plan", ""), words=("unknown suite ''", "known: attention-svm, ")),
    Bad(name="another ending", command=("plan", "bad.yaml"), words=("bad.yaml is no suite", ".toml")),
    Bad(name="escapes in a name", command=("plan", "\x1b[31mred"), words=(r"'\x1b[31mred'", "unknown suite")),
    Bad(name="a half pair in a name", command=("plan", "\udcff.toml"), words=(r"\udcff.toml", "cannot be read")),
    Bad(name="a name with NUL", command=("plan", "a\0b.toml"), words=(r"a\x00b.toml", "cannot be read")),
    suite("empty", "", "is empty", "docs/suites.md"),
    suite("white", " \n\t\n", "is empty", "docs/suites.md"),
    suite("comments only", "# a suite\n", "name: missing", "contestants: missing"),
    suite("UTF-16", GOOD.encode("utf-16"), "UTF-16", "save it as UTF-8"),
    suite("UTF-16 without its mark", GOOD.encode("utf-16-le"), "UTF-16", "save it as UTF-8"),
    suite("Latin-1", GOOD.replace("Two models", "Zwei für uns").encode("latin-1"), "line 3 is not UTF-8", "0xfc"),
    suite("binary", bytes(range(256)), "save it as UTF-8"),
    suite("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8", "save it as UTF-8"),
    suite("NUL", GOOD.replace("Two models", "Two\0models"), "is not TOML", "line 3"),
    suite("YAML", "name: tiny\nversion: 1\nbudget:\n  epochs: 2\n", "looks like YAML", "key = value"),
    suite("YAML with its mark", "---\nname: tiny\n", "looks like YAML", "[table]"),
    suite("a YAML list", "- name: tiny\n", "looks like YAML"),
    suite("JSON", '{"name": "tiny", "version": 1}', "looks like JSON", "key = value"),
    suite("INI", "[budget]\nepochs = 2\nprecision = mixed\n", "line 3", "a text stands in quotes"),
    suite("an INI comment", "; a suite\n" + GOOD, "line 1", "a comment begins with #"),
    suite("a YAML line within", GOOD.replace(EPOCHS, "epochs: 2"), "line 10", "write key = value, not key: value"),
    suite("XML", "<suite/>", "is not TOML", "line 1", "docs/suites.md"),
    suite("Python", GOOD.replace("log = true", "log = True"), "line 18", "write true or false"),
    suite("Python's None", GOOD.replace(EPOCHS, "epochs = None"), "line 10", "what is none is left out"),
    suite("no value", GOOD.replace(EPOCHS, "epochs ="), "line 10", "something is missing there"),
    suite("no closing quote", GOOD.replace(NAME, 'name = "tiny'), "line 1", "is not TOML"),
    suite("a key twice", GOOD.replace(NAME, f"{NAME}\n{NAME}"), "line 2", "each key and each table stands once"),
    suite("a table twice", GOOD + "\n[budget]\n", "[budget]"[1:-1], "each key and each table stands once"),
    suite("a dotted key against a value", GOOD.replace(NAME, f"{NAME}\nname.first = 1"), "is not TOML", "line 2"),
    suite("a table against a list", GOOD + "[contestants]\n", "is not TOML", "each table stands once"),
    suite("an escape that is none", GOOD.replace("Two models.", r"\x"), "line 3", "is not TOML"),
    suite("a half pair", GOOD.replace("Two models.", r"\ud800"), "line 3", "is not TOML"),
    suite("a date that is none", GOOD.replace(EPOCHS, "epochs = 2020-13-45"), "line 10", "is not TOML"),
    suite("lists in lists", GOOD.replace(SEEDS, "seeds = " + "[" * 5000 + "]" * 5000), "nested too deeply", "three"),
    suite("tables in tables", GOOD.replace(RATE, "{a = " * 3000 + "1" + "}" * 3000), "nested too deeply"),
    suite("lists twenty deep", GOOD.replace(SEEDS, "seeds = " + "[" * 20 + "]" * 20), "seeds", "12 levels"),
    suite("a key of many parts", GOOD.replace(EPOCHS, ".".join(["a"] * 5000) + " = 1"), "line 10", "32 parts"),
    suite("a number of many digits", GOOD.replace(EPOCHS, "epochs = " + "9" * 5000), "line 10", "too many digits",
          "a shorter one"),
    suite("a hexadecimal number without end", GOOD.replace(EPOCHS, "epochs = 0x" + "f" * 9000), "budget.epochs",
          "2^63"),
    suite("a text of 900 kB", GOOD.replace("Two models", "x" * 900_000), "summary: a text of 900,001", "1,000 at most"),
    suite("a name of 900 kB", GOOD.replace('model = "crate"', f'model = "{"x" * 900_000}"'), "contestants[1]",
          "1,000 at most"),
    suite("a key of 900 kB", GOOD.replace(EPOCHS, "e" * 900_000 + " = 2"), "budget", "is no name for a key"),
    suite("100,000 seeds", GOOD.replace(SEEDS, f"seeds = {MANY}"), "seeds: holds 100,000 values", "10,000 at most"),
    suite("100,000 wrong seeds", GOOD.replace(SEEDS, f"seeds = {['x'] * 10_000}"), "seeds[0]", "and 9,992 more"),
    suite("a grid without end", GOOD.replace(TASKS, "tasks = [" + ",".join(f'"digits[shift={i}]"' for i in range(20))
          + "]").replace(SEEDS, "seeds = 10000"), "400,000 cells", "100,000 at most"),
]  # fmt: skip


def _touched(path: Path) -> Path:
    path.touch()
    return path


KEYS = [
    # unknown and missing
    edit("version = 1", "version = 1\nverison = 2", "verison: unknown", "did you mean 'version'"),
    edit("version = 1", "version = 1\nzebra = 1", "zebra: unknown", "known: name, version"),
    edit(EPOCHS, f"{EPOCHS}\nepoch = 2", "budget.epoch: unknown", "'budget.epochs'"),
    edit(EPOCHS, f"{EPOCHS}\nbatchsize = 2", "budget.batchsize: unknown", "'budget.batch_size'"),
    edit("seed = 1", "sede = 1", "tuning.sede: unknown", "'tuning.seed'"),
    edit("log = true", "lg = true", f"{WHERE_RATE}.lg: unknown", f"'{WHERE_RATE}.log'"),
    edit(RECIPE, f"{RECIPE}\noptimizer = 'adamw'", "recipes.plain.optimizer: unknown", "optimiser"),
    edit(LABEL, 'lable = "crate"', "contestants[1] (crate).lable: unknown", "label"),
    edit(LABEL, 'options = {dim = 8}', "contestants[1] (crate).options: unknown", "known: model"),
    edit("[budget]", "[buget]", "buget: unknown", "'budget'"),
    edit("[tuning]", "[turning]", "turning: unknown", "'tuning'"),
    edit("[tuning]", "[guests.x]\n[tuning]", "guests: unknown", "--model"),
    edit(NAME, f'{NAME}\n"" = 1', "is no name for a key", "letters"),
    edit(NAME, f'{NAME}\n"\\u001b[31m" = 1', r"\x1b[31m", "is no name for a key"),
    edit(NAME, "", "name: missing"),
    edit("version = 1", "", "version: missing"),
    edit('summary = "Two models."', "", "summary: missing"),
    edit(PRIMARY, "", "primary: missing"),
    edit(TASKS, "", "tasks: missing"),
    edit(SEEDS, "", "seeds: missing"),
    edit(f"metrics = {METRICS}", "", "metrics: missing"),
    edit(EPOCHS, "", "budget.epochs: missing"),
    edit("batch_size = 32", "", "budget.batch_size: missing"),
    edit("trials = 1", "", "budget.trials: missing"),
    edit(f"{VALUE}, ", "", f"{WHERE_RATE}.value: missing"),
    edit(f"learning_rate = {RATE}", "", f"{WHERE_RATE}: missing"),
    edit('"vit[dim=8,heads=2]"', "'vit[dim=8]'\n[[contestants]]", "contestants[1].model: missing"),
    # types
    edit(NAME, "name = 3", "name: must be a valid string, got 3"),
    edit(NAME, "name = ['tiny']", "name: must be a valid string, got ['tiny']"),
    edit("version = 1", 'version = "1"', "version: must be a valid integer, got '1'"),
    edit("version = 1", "version = 1.0", "version: must be a valid integer, got 1.0"),
    edit("version = 1", "version = true", "version: must be a valid integer, got true"),
    edit(EPOCHS, "epochs = 2020-01-01", "budget.epochs: must be a valid integer, got 2020-01-01, a date"),
    edit(EPOCHS, "epochs = 07:30:00", "budget.epochs: must be a valid integer, got 07:30:00"),
    edit(EPOCHS, "epochs = 2020-01-01T07:30:00Z", "budget.epochs: must be a valid integer, got 2020-01-01T07:30:00"),
    edit(EPOCHS, "epochs = { value = 2 }", "budget.epochs: must be a valid integer"),
    edit(EPOCHS, "epochs = [2]", "budget.epochs: must be a valid integer, got [2]"),
    edit(VALUE, 'value = "3e-3"', f"{WHERE_RATE}.value: must be a valid number, got '3e-3'"),
    edit(VALUE, "value = true", f"{WHERE_RATE}.value: must be a valid number, got true"),
    edit(VALUE, "value = 1979-05-27", f"{WHERE_RATE}.value: must be a valid number, got 1979-05-27"),
    edit("log = true", 'log = "true"', f"{WHERE_RATE}.log: must be a valid boolean, got 'true'"),
    edit("log = true", "log = 1", f"{WHERE_RATE}.log: must be a valid boolean, got 1"),
    edit(RATE, "3e-3", f"{WHERE_RATE}: must be a table", "{ key = value }"),
    edit(RATE, "[1e-3, 1e-2]", f"{WHERE_RATE}: must be a table", "{ key = value }"),
    edit(RATE, "{}", f"{WHERE_RATE}.value: missing"),
    edit(TASKS, 'tasks = "digits"', "tasks: must be a valid", "got 'digits'"),
    edit(TASKS, "tasks = { digits = 1 }", "tasks: must be a valid"),
    edit(TASKS, "tasks = [3]", "tasks[0]: must be a valid string, got 3"),
    edit(METRICS, '["accuracy", ["sparsity"]]', "metrics[1]: must be a valid string, got ['sparsity']"),
    edit("[tuning]\nseed = 1", "[[tuning]]\nseed = 1", "tuning: must be a table"),
    edit("[tuning]\nseed = 1", "[tuning]\nseed = {}", "tuning.seed: must be a valid integer"),
    edit(RECIPE, "[[recipes.plain]]", "recipes.plain: must be a table"),
    edit(RECIPE, f"{RECIPE}\nbetas = [0.9]", "recipes.plain.betas", "missing"),
    edit(RECIPE, f"{RECIPE}\nbetas = [0.9, 0.9, 0.9]", "recipes.plain.betas"),
    edit(RECIPE, f"{RECIPE}\nbetas = 0.9", "recipes.plain.betas: must be a valid"),
    edit(RECIPE, f"{RECIPE}\naugment = 'no'", "recipes.plain.augment: must be a valid boolean, got 'no'"),
    suite("no contestants", "contestants = []\n" + GOOD.partition("[[cont")[0], "contestants: must not be empty"),
    suite("contestants as a table", GOOD.partition("[[cont")[0] + "[contestants]\nmodel = 'vit'", "contestants: must"),
    suite("contestants as texts", "contestants = ['vit']\n" + GOOD.partition("[[cont")[0],
          "contestants[0]: must be a table", "got 'vit'"),
]  # fmt: skip

VALUES = [
    # numbers that are none, or too large, or too small
    edit(VALUE, "value = nan", f"{WHERE_RATE}.value: must be a finite number"),
    edit(VALUE, "value = inf", f"{WHERE_RATE}.value: must be a finite number"),
    edit(VALUE, "value = -inf", f"{WHERE_RATE}.value: must be a finite number"),
    edit(VALUE, "value = 1e400", f"{WHERE_RATE}.value: must be a finite number"),
    edit("low = 1e-3", "low = nan", f"{WHERE_RATE}.low: must be a finite number"),
    edit("high = 1e-2", "high = inf", f"{WHERE_RATE}.high: must be a finite number"),
    edit(EPOCHS, "epochs = nan", "budget.epochs: must be a valid integer"),
    edit(EPOCHS, "epochs = inf", "budget.epochs: must be a valid integer"),
    edit(EPOCHS, "epochs = 2e0", "budget.epochs: must be a valid integer, got 2.0"),
    edit(SEEDS, "seeds = [nan]", "seeds[0]: must be a valid integer"),
    edit(EPOCHS, f"epochs = {10**30}", "budget.epochs: a number too large", "2^63"),
    edit(EPOCHS, f"epochs = {2**31}", "budget.epochs: must be at least 0 and below 2^31"),
    edit(EPOCHS, "epochs = -3", "budget.epochs: must be at least 0"),
    edit("batch_size = 32", "batch_size = 0", "budget.batch_size: must be at least 1"),
    edit("batch_size = 32", "batch_size = -1", "budget.batch_size: must be at least 1"),
    edit("trials = 1", "trials = -1", "budget.trials: must be at least 0"),
    edit("trials = 1", f"trials = {2**40}", "budget.trials", "below 2^31"),
    edit("trials = 1", "trials = 1\nthreads = 0", "budget.threads: must be at least 1"),
    edit("trials = 1", "trials = 1\nthreads = -2", "budget.threads: must be at least 1"),
    edit("version = 1", "version = 0", "version: must be at least 1"),
    edit("version = 1", f"version = {2**40}", "version", "below 2^31"),
    edit("seed = 1", "seed = -1", "tuning.seed: must be in [0, 2^31)"),
    edit("seed = 1", f"seed = {2**31}", "tuning.seed: must be in [0, 2^31)"),
    edit("seed = 1", "pruning_from_trial = 0", "tuning.pruning_from_trial: must be at least 1"),
    edit("seed = 1", "pruning_from_epoch = -1", "tuning.pruning_from_epoch: must be at least 1"),
    edit(SEEDS, "seeds = 0", "seeds: 0 must be 1 to 10000", "a list"),
    edit(SEEDS, "seeds = -1", "seeds: -1 must be 1 to 10000"),
    edit(SEEDS, "seeds = 10001", "seeds: 10001 must be 1 to 10000"),
    edit(SEEDS, "seeds = []", "seeds: must not be empty"),
    edit(SEEDS, "seeds = [-1]", "seeds: must be in [0, 2^31), got -1"),
    edit(SEEDS, f"seeds = [0, {2**31}]", "seeds: must be in [0, 2^31), got 2147483648"),
    edit(SEEDS, "seeds = [1, 2, 1]", "seeds: 1 is given twice", "leave one out"),
    edit("low = 1e-3", "low = 1", f"{WHERE_RATE}: a range needs low < high"),
    edit("low = 1e-3", "low = 1e-2", f"{WHERE_RATE}: a range needs low < high"),
    edit("low = 1e-3, ", "", f"{WHERE_RATE}: a range needs both low and high"),
    edit("low = 1e-3", "low = 0", f"{WHERE_RATE}: a logarithmic range needs low > 0"),
    edit("low = 1e-3", "low = -1e-3", f"{WHERE_RATE}: a logarithmic range needs low > 0"),
    edit(RATE, "{ value = 1e-3, log = true }", f"{WHERE_RATE}.log: needs a range, low and high"),
    edit(RATE, "{ value = 1e-3, low = -1, high = 1 }", f"{WHERE_RATE}.low: must be above zero"),
    edit(VALUE, "value = 0", f"{WHERE_RATE}.value: must be above zero"),
    edit(RECIPE, f"{RECIPE}\nweight_decay = {{ value = -1 }}",
         "recipes.plain.weight_decay.value: must not be negative"),
    edit(RECIPE, f"{RECIPE}\nlabel_smoothing = 1", "recipes.plain.label_smoothing: must be in [0, 1)"),
    edit(RECIPE, f"{RECIPE}\nbetas = [0.9, 1.0]", "recipes.plain.betas: must be in [0, 1)"),
    edit(RECIPE, f"{RECIPE}\nclip_norm = -1", "recipes.plain.clip_norm: must not be negative"),
    edit(RECIPE, f"{RECIPE}\nwarmup_epochs = -1", "recipes.plain.warmup_epochs: must not be negative"),
    edit(RECIPE, f"{RECIPE}\noptimiser = 'adam'", "recipes.plain.optimiser: must be 'adamw' or 'lion', got 'adam'"),
    edit(RECIPE, f"{RECIPE}\nschedule = 'linear'", "recipes.plain.schedule: must be 'cosine' or 'constant'"),
    edit("trials = 1", "trials = 1\nprecision = '16'", "budget.precision: must be '32' or 'bf16-mixed', got '16'"),
    edit("trials = 1", "trials = 1\nprecision = 32", "budget.precision: must be '32' or 'bf16-mixed', got 32"),
    edit("trials = 1", "trials = 1\nreport = 'best'", "budget.report: must be 'last' or 'chosen', got 'best'"),
    edit("seed = 1", "sampler = 'random'", "tuning.sampler: must be 'quasi-random' or 'tpe'"),
    edit("seed = 1", "pruning = 'on'", "tuning.pruning: must be 'off' or 'median'"),
    # names
    edit(NAME, 'name = "Tiny"', "name: 'Tiny' must be", "lower-case letters"),
    edit(NAME, 'name = ""', "name: '' must be", "lower-case letters"),
    edit(NAME, 'name = "../tiny"', "name: '../tiny' must be", "lower-case letters"),
    edit(NAME, 'name = "a/b"', "name: 'a/b' must be", "lower-case letters"),
    edit(NAME, f'name = "{"a" * 65}"', "name: ", "up to 64"),
    edit(NAME, 'name = "tiny\\n"', "name: 'tiny\\n' holds a character", "leave it out"),
    edit("Two models.", "\\u001b[31mred", "summary: ", "'\\x1b[31mred' holds a character", "leave it out"),
    edit("Two models.", "a\\u0000b", "summary: ", "holds a character that cannot be seen"),
    edit("Two models.", "a\\u202eb", "summary: ", "holds a character that cannot be seen"),
    edit("Two models.", "x" * 201, "summary: must be one line of up to 200"),
    edit(LABEL, 'label = "a/b"', "contestants[1] (a/b).label: 'a/b' must be", "letters, digits"),
    edit(LABEL, 'label = " "', "contestants[1] (crate).label: ' ' must be"),
    edit(LABEL, 'label = "-m"', "contestants[1] (-m).label: '-m' must be", "beginning with a letter"),
    edit(LABEL, f'label = "{"a" * 121}"', "contestants[1]", "up to 120 letters"),
    edit(LABEL, 'label = "vit[dim=8,heads=2]"', "label vit[dim=8,heads=2] is given twice", "its own label"),
    edit(LABEL, 'recipe = "plian"', "contestants: crate: unknown recipe 'plian'", "'plain'"),
    edit(LABEL, 'recipe = ""', "unknown recipe ''", "known: plain"),
    edit(TASKS, "tasks = []", "tasks: must not be empty"),
    edit(TASKS, 'tasks = ["digits", "digits"]', "tasks: digits is given twice"),
    edit(TASKS, 'tasks = [""]', "tasks: '' is not a name", "name[option=value"),
    edit(TASKS, 'tasks = ["digits[shift=a/b]"]', "tasks: 'digits[shift=a/b]' holds a /"),
    edit(METRICS, "[]", "metrics: must not be empty"),
    edit(METRICS, '["accuracy", "accuracy"]', "metrics: accuracy is given twice"),
    edit(PRIMARY, 'primary = "acuracy"', "primary: 'acuracy' is not among metrics", "'accuracy'"),
    edit(PRIMARY, 'primary = ""', "primary: '' is not among metrics", "add it"),
    edit("trials = 1", "trials = 1\nthreads = 2000000000", "budget.threads: must be 1,024 at most"),
    edit(PRIMARY, 'primary = "zebra"', "primary: 'zebra' is not among metrics", "accuracy, sparsity"),
    # options in names, before anybody is asked
    edit(MODEL, '"c"\nmodel = "crate["\n#', "contestants[1] (c).model: 'crate[' is not a name"),
    edit(MODEL, '"c"\nmodel = "crate[]"\n#', "contestants[1] (c).model: 'crate[]' is not a name"),
    edit(MODEL, '"c"\nmodel = "crate[dim]"\n#', "contestants[1] (c).model", "'dim' is not option=value"),
    edit(MODEL, '"c"\nmodel = "crate[dim=]"\n#', "contestants[1] (c).model", "'dim=' is not option=value"),
    edit(MODEL, '"c"\nmodel = "crate[=8]"\n#', "contestants[1] (c).model", "'=8' is not option=value"),
    edit(MODEL, '"c"\nmodel = "crate[dim=8,]"\n#', "contestants[1] (c).model", "'' is not option=value"),
    edit(MODEL, '"c"\nmodel = "crate[dim=8,dim=9]"\n#', "option 'dim' is given twice", "leave one out"),
    edit(MODEL, '"c"\nmodel = "crate[dim=[8]]"\n#', "contestants[1] (c).model", "is not a name"),
    edit(MODEL, '"c"\nmodel = "crate[dim=8][dim=9]"\n#', "contestants[1] (c).model", "is not a name"),
    edit(MODEL, '"c"\nmodel = ""\n#', "contestants[1] (c).model: '' is not a name"),
    edit(MODEL, '"c"\nmodel = "the crate"\n#', "contestants[1] (c).model: 'the crate' is not a name"),
    edit(MODEL, '"c"\nmodel = "crate[dim=\\u0007]"\n#', "contestants[1] (c).model", "cannot be seen"),
]  # fmt: skip

AGAINST = [
    against(f"{RECIPE}\nlearning_rate = {RATE}", "", "recipes: missing", "task digits is learnt"),
    against("[budget]\nepochs = 2\nbatch_size = 32\ntrials = 1\n", "", "budget: missing", "task digits is learnt"),
    against('model = "crate"', 'model = "token-selector"', "contestant crate: model token-selector has no head",
            "task digits is learnt"),
    against('["digits"]', '["digits", "token-selection"]', "token-selection solves itself and digits is learnt",
            "give each a suite of its own"),
    against(RANKED.format(task="digits", seeds=3, metric="accuracy").removesuffix("]"),
            RANKED.format(task="digits", seeds=3, metric="accepted").removesuffix("]"),
            "primary 'accepted' cannot rank: task digits is learnt, and yields no solution"),
    against('primary = "accuracy"', 'primary = "sparsity"', "it needs codes"),
    solving('"token-selector"', '"vit"', "contestant vit: model vit learns from samples", "without a head"),
    solving('"token-selector"', '"token-selector"\nlabel = "a"\nobjective = "mcr2"', "contestant a: objective: ",
            "nothing is trained: leave it out"),
    solving('"token-selector"', '"token-selector[step=adan]"', "contestant token-selector[step=adan]", "step=adan"),
    solving('"token-selector"', '"token-selector[learning_rate=0]"', "learning_rate=0.0", "above 0"),
    solving('metrics = ["accepted"]', 'metrics = ["accepted"]\nreadouts = ["nearest-subspace"]', "readouts: ",
            "task token-selection solves itself"),
    solving("[[contestants]]", "[recipes.plain]\nlearning_rate = { value = 1.0 }\n[[contestants]]", "recipes: ",
            "nothing is trained or tuned: leave it out"),
    solving("[[contestants]]", "[budget]\nepochs = 1\nbatch_size = 1\ntrials = 0\n[[contestants]]", "budget: "),
    solving(RANKED.format(task="token-selection[draws=2]", seeds=2, metric="accepted"),
            RANKED.format(task="token-selection[draws=2]", seeds=2, metric="accuracy"),
            "primary 'accuracy' cannot rank: task token-selection solves itself, and has no logits or labels"),
    solving("draws=2", "draws=0", "token-selection[draws=0]", "must be 1 or more"),
    solving("draws=2", "ridge=1e-3", "claim w-frobenius has no ridge"),
    against('model = "crate"', 'model = "crat"', "contestant crate: unknown model 'crat'", "did you mean 'crate'"),
    against('model = "crate"', 'model = "zebra"', "contestant crate: unknown model 'zebra'", "(known: "),
    against('model = "crate"', 'model = "CRATE"', "unknown model 'CRATE'", "did you mean 'crate'"),
    against('model = "crate"', 'model = "crate[dimm=8]"', "unknown option 'dimm'", "did you mean 'dim'",
            "options: dim"),
    against('model = "crate"', 'model = "crate[dim=8.5]"', "option dim=8.5", "valid integer"),
    against('model = "crate"', 'model = "crate[dim=eight]"', "option dim=eight", "valid integer"),
    against('model = "crate"', 'model = "crate[dim=nan]"', "option dim=nan", "valid integer"),
    against('model = "crate"', 'model = "crate[dim=true]"', "option dim=true", "valid integer"),
    against('model = "crate"', f'model = "crate[dim={10**30}]"', "option dim=1000", "2^63"),
    against('model = "crate"', f'model = "crate[dim={"9" * 900}]"', "option dim=999", "2^63"),
    against('model = "crate"', 'model = "crate[dim=0]"', "crate[dim=0]", "must be 1 or more"),
    against('model = "crate"', 'model = "crate[dim=-8]"', "crate[dim=-8]", "must be 1 or more"),
    against('model = "crate"', 'model = "crate[dim=10,heads=4]"', "does not split evenly", "e.g. dim=12"),
    against('model = "crate"', 'model = "crate[eta=nan]"', "option eta=nan", "must be a finite number"),
    against('model = "crate"', 'model = "crate[eta=1e400]"', "option eta=1e400", "must be a finite number"),
    against('model = "crate"', 'model = "crate[eta=-inf]"', "eta=-inf"),
    against('model = "crate"', 'model = "crate[eta=0]"', "crate[eta=0.0]", "above 0"),
    against('model = "crate"', 'model = "crate[pool=max]"', "option pool=max", "'cls' or 'mean'"),
    against('model = "crate"', 'model = "crate"\nobjective = "cross-entrpy"', "unknown objective", "'cross-entropy'"),
    edit('model = "crate"', 'model = "crate"\nobjective = ""', "contestants[1] (crate).objective: '' is not a name"),
    against('model = "crate"', 'model = "crate"\nobjective = "mcr2[eps=1]"', "option 'eps', did you mean 'eps2'"),
    against('model = "crate"', 'model = "crate"\nobjective = "mcr2[eps2=0]"', "mcr2[eps2=0.0]: must be above 0"),
    against('model = "crate"', 'model = "crate"\nreadout = "nearest"', "contestant crate: unknown readout 'nearest'",
            "did you mean 'nearest-subspace'"),
    against('model = "crate"', 'model = "crate"\nobjective = "mcr2"\nreadout = "head"', "crate: readout head: ",
            "objective mcr2 leaves the head untrained"),
    edit('model = "crate"', 'model = "crate"\nepochs = 3', "contestants[1] (crate).epochs: must be 0, got 3"),
    against('metrics = ["accuracy"', 'readouts = ["head"]\nmetrics = ["accuracy"', "unknown readout 'head'"),
    against(TASKS, 'tasks = ["digit"]', "tasks: unknown task 'digit'", "did you mean 'digits'"),
    against(TASKS, 'tasks = ["imagenet"]', "tasks: unknown task 'imagenet'", "did you mean 'imagenet-1k'"),
    against(TASKS, 'tasks = ["mnist"]', "tasks: unknown task 'mnist'", "known: cifar10"),
    against(TASKS, 'tasks = ["digits[path=a/b]"]', "tasks: ", "unknown option 'path'", "options: train"),
    against(TASKS, 'tasks = ["digits[shfit=1]"]', "tasks: ", "unknown option 'shfit'", "did you mean 'shift'"),
    against(TASKS, 'tasks = ["digits[shift=9]"]', "tasks: ", "digits[shift=9]", "e.g. shift=1"),
    against(TASKS, 'tasks = ["digits[shift=0.5]"]', "tasks: ", "option shift=0.5", "valid integer"),
    against(TASKS, 'tasks = ["digits", "digits[shift=0]"]', "digits and digits[shift=0] are one task", "leave one out"),
    against(TASKS, 'tasks = ["digits[shift=1]", "digits[ shift = 1 ]"]', "are one task in other words"),
    against(TASKS, 'tasks = ["digits[shift=1]", "digits[shift=01]"]', "are one task in other words"),
    against(METRICS, '["accuracy", "sparsty"]', "metrics: unknown metric 'sparsty'", "did you mean 'sparsity'"),
    against(METRICS, '["accuracy", "accuracy[k=1]"]', "metrics: unknown metric 'accuracy[k=1]'", "known: "),
    against(METRICS, '["accuracy", "\N{CYRILLIC SMALL LETTER ES}parsity"]', "metrics: unknown metric", "'sparsity'"),
    against(PRIMARY, 'primary = "sparsity"', "primary 'sparsity' cannot rank", "it needs codes", "choose another"),
    against(PRIMARY, 'primary = "coding-rate"', "primary 'coding-rate' cannot rank", "no better direction",
            "choose another"),
]  # fmt: skip

SET = "write KEY=VALUE, as in budget.epochs=3"
OVERRIDES = [
    override("", "--set", SET),
    override("budget.epochs", "--set budget.epochs", SET),
    override("=3", "--set =3", SET),
    override("budget.epochs=", "--set budget.epochs=", SET),
    override(".epochs=3", "--set .epochs=3", SET),
    override("budget..epochs=3", "--set budget..epochs=3", SET),
    override("budget.=3", "--set budget.=3", SET),
    override(".".join("a" * 500) + "=3", "--set a.a.a", SET),
    override("budget.epoch=3", "budget.epoch: unknown", "'budget.epochs'"),
    override("epochs=3", "epochs: unknown", "did you mean budget.epochs?"),
    override("budget.epochs=three", "budget.epochs: must be a valid integer, got 'three'"),
    override("budget.epochs=-1", "budget.epochs: must be at least 0"),
    override("budget.epochs=1e3", "budget.epochs: must be a valid integer, got 1000.0"),
    override("budget.epochs=" + "9" * 5000, "--set budget.epochs=999", "too many digits", "shorter value"),
    override("budget=3", "budget: must be a table"),
    override("version.major=3", "version.major does not name a key of a table"),
    override("contestants.0.label=x", "contestants.0.label does not name a key of a table"),
    override("seeds=" + "[" * 3000 + "]" * 3000, "--set seeds=[[[", "nested too deeply"),
    override("seeds=[0,0]", "seeds: 0 is given twice"),
    override("seeds=[1,2", "seeds: must be a valid", "got '[1,2'"),
    override("summary=\x1b[31mred", r"--set summary=\x1b[31mred", "cannot be seen"),
    override("summary=two\nlines", "--set summary=two", "cannot be seen"),
    override("summary=\udcff", r"\udcff", "cannot be seen"),
    override("guests=[]", "guests: unknown", "--model"),
    override("recipes.plain.learning_rate.value=nan", f"{WHERE_RATE}.value: must be a finite number"),
]

PARALLEL, STORE = ("--parallel", "range 1<=x<=1024", "--help"), "sqlite:///whitebench.db"
OPTIONS = [
    typed("run", "bad.toml", "--seeds", "", words=("--seeds", "write 3 (the first three)")),
    typed("run", "bad.toml", "--seeds", "x", words=("--seeds x", "write 3")),
    typed("run", "bad.toml", "--seeds", "-1", words=("--seeds -1", "write 3")),
    typed("run", "bad.toml", "--seeds", "0", words=("--seeds 0", "write 3")),
    typed("run", "bad.toml", "--seeds", "1.5", words=("--seeds 1.5", "write 3")),
    typed("plan", "bad.toml", "--seeds", "2-1", words=("--seeds 2-1", "write 3")),
    typed("plan", "bad.toml", "--seeds", "1,", words=("--seeds 1,", "write 3")),
    typed("plan", "bad.toml", "--seeds", "0-999999999", words=("--seeds 0-999999999", "10,000 at most")),
    typed("plan", "bad.toml", "--seeds", "9" * 5000, words=("--seeds 999", "write 3")),
    typed("plan", "bad.toml", "--seeds", "0,5", words=("--seeds: 5 not among the seeds", "--set seeds=6")),
    typed("plan", "bad.toml", "--seeds", "9999", words=("not among the seeds of suite tiny", "more",
          "--set seeds=9999")),
    typed("run", "bad.toml", "--parallel", "0", words=("0 is not in the", *PARALLEL)),
    typed("run", "bad.toml", "--parallel", "-1", words=("-1 is not in the", *PARALLEL)),
    typed("run", "bad.toml", "--parallel", str(10**9), words=("1000000000 is not in the", *PARALLEL)),
    typed("run", "bad.toml", "--parallel", "two", words=("--parallel", "'two' is not a valid integer", "--help")),
    typed("run", "bad.toml", "--parallel", "1.5", words=("--parallel", "'1.5' is not a valid integer")),
    typed("run", "bad.toml", "-m", "crat", words=("contestant of suite tiny, or model, 'crat'",
          "did you mean 'crate'")),
    typed("run", "bad.toml", "-m", "", words=("'' is not a name", "name[option=value")),
    typed("run", "bad.toml", "-m", "crate[dim=8", words=("'crate[dim=8' is not a name",)),
    typed("run", "bad.toml", "-m", "crate[dimm=8]", words=("unknown option 'dimm'", "did you mean 'dim'")),
    typed("run", "bad.toml", "-m", "vit[dim=8, heads=2]", words=("label", "give the contestant a label")),
    typed("run", "bad.toml", "-m", "vit[dim=x]", words=("option dim=x", "valid integer")),
    typed("run", "bad.toml", "-t", "digit", words=("unknown task of suite tiny 'digit'", "did you mean 'digits'")),
    typed("plan", "bad.toml", "-t", "", words=("unknown task of suite tiny ''", "known: digits")),
    typed("plan", "bad.toml", "--store", "", words=("--store", STORE)),
    typed("plan", "bad.toml", "--store", "results", words=("--store results", STORE, "sqlite:///results")),
    typed("run", "bad.toml", "--store", "ftp://host/x", words=("--store ftp://host/x", STORE)),
    typed("run", "bad.toml", "--store", "file:///tmp/x", words=("--store file:///tmp/x", STORE)),
    typed("run", "bad.toml", "--store", "sqlite://x.db", words=("--store sqlite://x.db", "three strokes")),
    typed("run", "bad.toml", "--store", "sqlite:///", words=("--store sqlite:///", "nothing would be kept")),
    typed("run", "bad.toml", "--store", "sqlite:///:memory:", words=(":memory:", "nothing would be kept")),
    typed("run", "bad.toml", "--store", "sqlite:///.", words=("--store sqlite:///.", "a folder", "give a file's path")),
    typed("run", "bad.toml", "--store", "sqlite:////dev/null", words=("/dev/null", "no file", "give a file's path")),
    typed("run", "bad.toml", "--store", "sqlite:///bad.toml", words=("no SQLite database", "give another path")),
    typed("run", "bad.toml", "--store", "sqlite:///bad.toml/x.db", words=("bad.toml is no folder", "inside one")),
    typed("run", "bad.toml", "--store", "sqlite:////proc/x/y.db", words=("/proc cannot be written", "another place")),
    typed("run", "smoke", words=(".whitebench is no folder", "move it away"), prepare=put("", ".whitebench")),
    typed("run", "smoke", words=("whitebench.db: that is a folder", "give a file's path"),
          prepare=lambda folder: (folder / "whitebench.db").mkdir()),
    typed("plan", "bad.toml", "--store", "sqlite:///a\0b", words=(r"a\x00b", "cannot be opened")),
    typed("plan", "bad.toml", "--store", "http://", words=("--store http://", "names no host", STORE)),
    typed("plan", "bad.toml", "--store", "http://[::1", words=("--store http://[::1", STORE)),
    typed("plan", "bad.toml", "--store", "http://host:99999", words=("--store http://host:99999", "0-65535", STORE)),
    typed("board", "bad.toml", "--store", "http://localhost:1", words=("the store at localhost:1", "does not answer",
          "is the server running")),
    typed("plan", "bad.toml", "--store", "http://me:secret@localhost:1", words=("at localhost:1", "does not answer")),
    typed("plan", "bad.toml", "--store", "\x1b]0;x\x07", words=(r"\x1b]0;x\x07", STORE)),
    typed("status", "bad.toml", env={"MLFLOW_TRACKING_URI": "nonsense"}, words=("MLFLOW_TRACKING_URI nonsense", STORE)),
    typed("run",
          "bad.toml", env={"MLFLOW_TRACKING_URI": "databricks"}, words=("MLFLOW_TRACKING_URI databricks", STORE)),
    typed("run", "bad.toml", "--plugin", "none.py", words=("--plugin none.py", "no such file", "give the path")),
    typed("run", "bad.toml", "--plugin", "min.py", words=("no such file", "did you mean 'mine.py'"),
          prepare=put("", "mine.py")),
    typed("run", "bad.toml", "--plugin", ".", words=("--plugin .", "is a folder", ".py file")),
    typed("list", "--plugin", "bad.toml", words=("--plugin bad.toml", "is no Python file", "must end in .py")),
    typed("board", "bad.toml", "--plugin", "bin.py", words=("--plugin bin.py", "is no Python file", "bytes"),
          prepare=put(b"\x7fELF\0\1\2", "bin.py")),
    typed("run", "bad.toml", "--plugin", "pipe.py", words=("--plugin pipe.py", "is no Python file"),
          prepare=lambda folder: os.mkfifo(folder / "pipe.py")),
    typed("plan", "bad.toml", "--plugin", "loop.py", words=("--plugin loop.py", "a link that leads to no file"),
          prepare=lambda folder: (folder / "loop.py").symlink_to("loop.py")),
    typed("plan", "bad.toml", env={"WHITEBENCH_PLUGINS": "a.py:b.py"}, words=("WHITEBENCH_PLUGINS a.py",
          "no such file")),
    typed("list", env={"WHITEBENCH_PLUGINS": "/"}, words=("WHITEBENCH_PLUGINS /", "is a folder", ".py file")),
    typed("show", "", words=("'' is no cell", "SUITE/CONTESTANT/TASK/SEED", "smoke/vit/digits/0")),
    typed("show", "smoke", words=("'smoke' is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("show", "smoke/vit/digits", words=("'smoke/vit/digits' is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("show", "smoke/vit/digits/x", words=("is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("show", "smoke/vit/digits/-1", words=("is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("show", "smoke/vit/digits/" + "9" * 5000, words=("is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("show", "smoke/vit/digits/9", words=("unknown cell 'smoke/vit/digits/9'", "did you mean 'smoke/vit/digits/")),
    typed("show", "smoke/vti/digits/0", words=("unknown cell", "did you mean 'smoke/vit/digits/0'")),
    typed("why-stale", "smok/vit/digits/0", words=("unknown suite 'smok'", "did you mean 'smoke'")),
    typed("why-stale", "////", words=("is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("why-stale", "smoke/vit/digits/²", words=("is no cell", "SUITE/CONTESTANT/TASK/SEED")),
    typed("runn", "smoke", words=("no such command 'runn'", "did you mean 'run'", "whitebench --help")),
    typed("zebra", words=("no such command 'zebra'", "commands: calibrate, doctor, list, plan", "whitebench --help")),
    typed("\x1b[2J", words=(r"no such command '\x1b[2J'", "commands: calibrate, doctor")),
    typed("--zebra", words=("No such option '--zebra'", "whitebench --help")),
    typed("run", words=("Missing argument 'SUITE'", "whitebench run --help")),
    typed("run", "a", "b", words=("unexpected extra argument", "whitebench run --help")),
    typed("run", "smoke", "--paralel", "2", words=("No such option '--paralel'", "'--parallel'",
          "whitebench run --help")),
    typed("plan", "smoke", "--modle", "vit", words=("No such option '--modle'", "'--model'")),
    typed("board", "smoke", "--format", "pdf", words=("--format", "'pdf' is not one of", "'latex'", "--help")),
    typed("bundle", words=("Missing argument 'DIR'", "--help")),
    typed("bundle", "bad.toml", words=("bad.toml cannot be written", "Not a directory", "another folder")),
    typed("bundle", ".", words=("holds files that no bundle left there", "give an empty folder, or --force")),
    typed("bundle", "bad.toml/site", words=("bad.toml/site cannot be written", "Not a directory", "another folder")),
    typed("bundle", "site", "smok", words=("unknown suite 'smok'", "did you mean 'smoke'")),
    typed("bundle", "site", "smoke", words=("which is not there", "no cells of smoke", "whitebench run smoke")),
    typed("bundle", "a\0b", words=(r"a\x00b", "give another folder")),
    typed("board", "smoke", "--json", "--format", "csv", words=("--json and --format csv", "give one")),
    typed("list", "modells", words=("'modells' is not one of", "'models'", "--help")),
    typed("run", "smoke", "--seeds", words=("--seeds", "requires an argument", "--help")),
]  # fmt: skip

TABLE = [*FILES, *KEYS, *VALUES, *AGAINST, *OVERRIDES, *OPTIONS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a person types, with a state folder of its own."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WHITEBENCH_PLUGINS", raising=False)
    return here


def look(folder: Path) -> list[tuple[str, int, int]]:
    """Return every file in a folder with its size and when it was changed."""
    found = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def refusal(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one message with which a command is refused, having seen all that holds of every refusal."""
    monkeypatch.setattr(sys, "argv", ["whitebench", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert ended.value.code == 2, printed
    assert printed.out == ""
    message, where = printed.err.splitlines()
    assert message.startswith("whitebench: ")
    assert len(message) < 2_000
    assert message.isprintable()
    log = Path(where.removeprefix("The traceback is in "))
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    return message


def test_the_table_is_long_and_says_nothing_twice() -> None:
    assert len(TABLE) >= 200
    assert len({(one.command, one.name, one.words) for one in TABLE}) == len(TABLE)
    assert sum(one.command[0] == "run" for one in TABLE) >= 50


@pytest.mark.parametrize("bad", [pytest.param(bad, id=re.sub(r"[^ -~]", "?", bad.name)[:80]) for bad in TABLE])
def test_bad_input_is_one_message_exit_code_2_and_nothing_started(
    bad: Bad, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad.prepare(folder)
    for name, value in bad.env.items():
        monkeypatch.setenv(name, value)
    before, running = look(folder), children()
    message = refusal(bad.command, monkeypatch, capsys)
    for word in bad.words:
        assert word in message
    assert "Traceback" not in message
    assert look(folder) == before
    assert children() <= running


@pytest.fixture
def unwritable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A state folder below what is no folder."""
    (folder / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "file"))
    yield
    (folder / "file").unlink()


@pytest.mark.usefixtures("unwritable")
def test_a_state_folder_that_cannot_be_written_makes_no_crash_of_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "unknown suite 'smok'" in refusal(("run", "smok"), monkeypatch, capsys)
    assert [path.name for path in tmp_path.glob("whitebench-*.log")]


def test_the_log_of_refusals_does_not_grow_without_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "state" / "whitebench" / "whitebench.log"
    log.parent.mkdir(parents=True)
    log.write_text("x" * 2_000_000)
    refusal(("run", "smok"), monkeypatch, capsys)
    assert "unknown suite 'smok'" in log.read_text()
    assert log.stat().st_size < 100_000
    assert [path.name for path in log.parent.iterdir() if path != log] == ["whitebench.log.1"]


def test_no_password_gets_into_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    refusal(("plan", "smok", "--store", "postgresql://me:secret@host/db"), monkeypatch, capsys)
    log = (tmp_path / "state" / "whitebench" / "whitebench.log").read_text()
    assert "postgresql://***@host/db" in log
    assert "secret" not in log


def test_a_good_suite_with_a_byte_order_mark_and_a_space_that_does_not_break_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "good.toml").write_text("\ufeff" + GOOD.replace("Two models", "Two\u00a0models"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["whitebench", "plan", "good.toml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "6 cells to do" in capsys.readouterr().out
