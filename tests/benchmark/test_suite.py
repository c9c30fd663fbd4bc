"""A suite's file: what is read, and a long table of what is refused and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from whitebench.budget import Budget, Tuning
from whitebench.errors import SuiteError
from whitebench.recipe import Recipe, Tuned
from whitebench.suite import Contestant, Suite, load_suite, parse_seeds, suite_names, with_guests

GOOD = """\
name = "tiny"
version = 1
summary = "Two models."
primary = "accuracy"
tasks = ["digits"]
seeds = 3
metrics = ["accuracy", "sparsity"]

[budget]
epochs = 2
batch_size = 32
trials = 1

[recipes.plain]
learning_rate = { value = 3e-3, low = 1e-3, high = 1e-2, log = true }

[[contestants]]
model = "vit[dim=8]"

[[contestants]]
label = "crate"
model = "crate"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def test_a_file_is_read_into_frozen_values(file: Path) -> None:
    assert load_suite(str(file)) == Suite(
        name="tiny",
        version=1,
        summary="Two models.",
        primary="accuracy",
        tasks=("digits",),
        seeds=(0, 1, 2),
        metrics=("accuracy", "sparsity"),
        budget=Budget(epochs=2, batch_size=32, trials=1),
        tuning=Tuning(),
        recipes={"plain": Recipe(learning_rate=Tuned(value=3e-3, low=1e-3, high=1e-2, log=True))},
        contestants=(Contestant(model="vit[dim=8]", label="vit[dim=8]"), Contestant(model="crate", label="crate")),
    )


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_that_comes_along_is_valid_and_bears_its_file_s_name(name: str) -> None:
    assert load_suite(name).name == name


def test_seeds_are_a_number_or_a_list(file: Path) -> None:
    file.write_text(GOOD.replace("seeds = 3", "seeds = [7, 5]"), encoding="utf-8")
    assert load_suite(str(file)).seeds == (7, 5)


def test_a_contestant_without_a_label_is_called_by_its_model(file: Path) -> None:
    suite = load_suite(str(file))
    assert [one.label for one in suite.contestants] == ["vit[dim=8]", "crate"]
    assert suite.contestant("crate") == suite.contestants[1]
    assert suite.contestant("zebra") is None


PETS = 'tasks = ["digits", "imagefolder[size=8,path=data/pets]", "parquet[path=~/birds.parquet]"]'


def test_a_task_s_path_is_taken_out_of_its_name_and_seen_from_the_suite_s_file(file: Path) -> None:
    file.write_text(GOOD.replace('tasks = ["digits"]', PETS), encoding="utf-8")
    suite = load_suite(str(file))
    assert suite.tasks == ("digits", "imagefolder[size=8]", "parquet")
    assert suite.path_of("imagefolder[size=8]") == str(file.parent / "data" / "pets")
    assert suite.path_of("parquet") == str(Path.home() / "birds.parquet")
    assert suite.path_of("digits") == ""


def test_paths_are_given_in_a_table_too_by_the_task_s_text_or_its_name_and_on_the_command_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = 'tasks = ["imagefolder[size=8]", "imagefolder[size=16]"]'
    table = '[paths]\nimagefolder = "pets"\n"imagefolder[size=16]" = "/data/large pets, [2]"\n\n[budget]'
    file.write_text(GOOD.replace('tasks = ["digits"]', tasks).replace("[budget]", table), encoding="utf-8")
    suite = load_suite(str(file))
    assert suite.path_of("imagefolder[size=8]") == str(file.parent / "pets")
    assert suite.path_of("imagefolder[size=16]") == "/data/large pets, [2]"
    monkeypatch.chdir(file.parent.parent)
    typed = load_suite(str(file), ["paths.imagefolder=mine"])
    assert typed.path_of("imagefolder[size=8]") == str(file.parent.parent / "mine")


def test_a_path_that_is_typed_counts_for_every_task_of_its_name_whatever_the_file_says(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[paths]\n"imagefolder[size=16]" = "large"\nparquet = "birds"\n\n[budget]'
    tasks = 'tasks = ["imagefolder[size=8,path=small]", "imagefolder[size=16]", "parquet"]'
    file.write_text(GOOD.replace('tasks = ["digits"]', tasks).replace("[budget]", table), encoding="utf-8")
    monkeypatch.chdir(file.parent.parent)
    suite = load_suite(str(file), ["paths.imagefolder=mine"])
    assert suite.tasks == ("imagefolder[size=8]", "imagefolder[size=16]", "parquet")
    assert {suite.path_of(task) for task in suite.tasks[:2]} == {str(file.parent.parent / "mine")}
    assert suite.path_of("parquet") == str(file.parent / "birds")


EPOCHS, RATE = "epochs = 2", "{ value = 3e-3, low = 1e-3, high = 1e-2, log = true }"

REFUSED = [
    # not TOML
    ('name = "tiny"', 'name: tiny', "tiny.toml is not TOML: Expected '=' after a key"),
    ('name = "tiny"', 'name = "tiny"\nname = "again"', "is not TOML: Cannot overwrite a value"),
    ("[budget]", "[budget]\n[budget]", "is not TOML: Cannot declare"),
    ('name = "tiny"', 'name = tiny', "is not TOML: Invalid value"),
    ('name = "tiny"', 'name = "tiny', "is not TOML: Illegal character"),
    # unknown keys
    (EPOCHS, f"{EPOCHS}\nepoch = 3", "budget.epoch: unknown, did you mean 'budget.epochs'"),
    ("version = 1", "version = 1\nverison = 1", "verison: unknown, did you mean 'version'"),
    ("version = 1", "version = 1\nzebra = 1", "zebra: unknown (known: name, version, summary, primary"),
    ("log = true", "lag = true", "recipes.plain.learning_rate.lag: unknown, did you mean 'recipes.plain."),
    ("[recipes.plain]", "[recipes.plain]\nwarmup = 1", "recipes.plain.warmup: unknown"),
    ('label = "crate"', 'lable = "crate"', "contestants[1] (crate).lable: unknown, did you mean"),
    ("[budget]", "[tuning]\nsampling = 1\n[budget]", "tuning.sampling: unknown, did you mean 'tuning.sampler'"),
    ("[budget]", "[[guests]]\nmodel = 'x'\n[budget]", "guests: unknown (guests come by --model"),
    ('tasks = ["digits"]', 'tasks = ["imagefolder[path=a]", "imagefolder[path=b]"]',
     "tasks: 'imagefolder' stands for two paths: give each a name"),
    ("[budget]", "[paths]\ndigit = '/a'\n[budget]", "paths: 'digit' is no task of this suite, did you mean 'digits'"),
    ("[budget]", "[paths]\ndigits = 3\n[budget]", "paths.digits: must be a valid string, got 3"),
    ("[budget]", "[match]\nparameters = 0\n[budget]", "match.parameters: must be 1 to"),
    ("[budget]", "[match]\nparameters = 5e6\ntolerance = 0\n[budget]", "match.tolerance: must be above 0"),
    ("[budget]", "[match]\nparameter = 5e6\n[budget]", "match.parameter: unknown, did you mean 'match.parameters'"),
    ("[budget]", "[limits]\nworkers = -1\n[budget]", "limits.workers: must be 0 to 256"),
    # missing keys
    (EPOCHS, "", "budget.epochs: missing"),
    ("seeds = 3", "", "seeds: missing"),
    ('name = "tiny"', "", "name: missing"),
    ('model = "crate"', "", "contestants[1] (crate).model: missing"),
    ("value = 3e-3, ", "", "recipes.plain.learning_rate.value: missing"),
    # wrong types
    (EPOCHS, "epochs = 2.5", "budget.epochs: must be a valid integer, got 2.5"),
    (EPOCHS, "epochs = 2.0", "budget.epochs: must be a valid integer, got 2.0"),
    (EPOCHS, 'epochs = "2"', "budget.epochs: must be a valid integer, got '2'"),
    (EPOCHS, "epochs = true", "budget.epochs: must be a valid integer, got true"),
    (EPOCHS, "epochs = []", "budget.epochs: must be a valid integer, got []"),
    (EPOCHS, "epochs = 2020-01-01", "budget.epochs: must be a valid integer"),
    ("version = 1", "version = false", "version: must be a valid integer, got false"),
    ('tasks = ["digits"]', 'tasks = "digits"', "tasks: must be a valid"),
    ('tasks = ["digits"]', "tasks = [3]", "tasks[0]: must be a valid string, got 3"),
    ("log = true", "log = 1", "recipes.plain.learning_rate.log: must be a valid boolean, got 1"),
    (RATE, "3e-3", "recipes.plain.learning_rate: must be a table, as in { key = value }, got 0.003"),
    ("3e-3", '"3e-3"', "recipes.plain.learning_rate.value: must be a valid number, got '3e-3'"),
    ("3e-3", "true", "recipes.plain.learning_rate.value: must be a valid number, got true"),
    ("seeds = 3", "seeds = true", "seeds: must be a valid"),
    ("seeds = 3", 'seeds = "3"', "seeds: must be a valid"),
    ("seeds = 3", "seeds = 1.5", "seeds: must be a valid"),
    ("seeds = 3", "seeds = [0, true]", "seeds[1]: must be a valid integer, got true"),
    ("[recipes.plain]", "[recipes.plain]\nbetas = [0.9]", "recipes.plain.betas"),
    ("[recipes.plain]", "[recipes.plain]\noptimiser = 'adam'", "recipes.plain.optimiser: must be 'adamw' or 'lion'"),
    ("[budget]", "[budget]\nprecision = 32", "budget.precision: must be '32' or 'bf16-mixed', got 32"),
    # numbers that are none
    ("3e-3", "nan", "recipes.plain.learning_rate.value: must be a finite number"),
    ("3e-3", "inf", "recipes.plain.learning_rate.value: must be a finite number"),
    ("3e-3", "1e400", "recipes.plain.learning_rate.value: must be a finite number"),
    ("[budget]", "[limits]\nfit_minutes = inf\n[budget]", "limits.fit_minutes: must be a finite number"),
    # keys of another table
    ("[budget]", "[budget]\nfit_minutes = 10.0", "budget.fit_minutes: unknown, did you mean limits.fit_minutes?"),
    ("seeds = 3", "seeds = 3\nepochs = 3", "epochs: unknown, did you mean budget.epochs?"),
    # values that make no sense
    (EPOCHS, "epochs = -3", "budget.epochs: must be at least 0"),
    (EPOCHS, f"epochs = {10**30}", "budget.epochs: "),
    ("batch_size = 32", "batch_size = 0", "budget.batch_size: must be at least 1"),
    ("trials = 1", "trials = -1", "budget.trials: must be at least 0"),
    ("version = 1", "version = 0", "version: must be at least 1"),
    ('name = "tiny"', 'name = "Tiny Suite"', "name: 'Tiny Suite' must be up to 64 lower-case letters"),
    ('name = "tiny"', 'name = ""', "name: '' must be"),
    ("low = 1e-3", "low = 1", "recipes.plain.learning_rate: a range needs low < high"),
    ("low = 1e-3, ", "", "recipes.plain.learning_rate: a range needs both low and high"),
    ("low = 1e-3", "low = -1", "recipes.plain.learning_rate: a logarithmic range needs low > 0"),
    ("[recipes.plain]", "[recipes.plain]\nlabel_smoothing = 1", "recipes.plain.label_smoothing: must be in [0, 1)"),
    ("[recipes.plain]", "[recipes.plain]\nweight_decay = { value = -1 }", "recipes.plain.weight_decay.value: must"),
    ("[budget]", "[tuning]\nseed = -1\n[budget]", "tuning.seed: must be in [0, 2^31)"),
    ("seeds = 3", "seeds = 0", "seeds: 0 must be 1 to 10000, or a list of seeds"),
    ("seeds = 3", "seeds = -3", "seeds: -3 must be 1 to 10000"),
    ("seeds = 3", "seeds = 1000000000", "seeds: 1000000000 must be 1 to 10000"),
    ("seeds = 3", "seeds = []", "seeds: must not be empty"),
    ("seeds = 3", "seeds = [1, 1]", "seeds: 1 is given twice"),
    ("seeds = 3", "seeds = [-1]", "seeds: must be in [0, 2^31)"),
    ("seeds = 3", f"seeds = [{2**31}]", "seeds: must be in [0, 2^31)"),
    ('tasks = ["digits"]', "tasks = []", "tasks: must not be empty"),
    ('tasks = ["digits"]', 'tasks = ["digits", "digits"]', "tasks: digits is given twice"),
    ('metrics = ["accuracy", "sparsity"]', "metrics = []", "metrics: must not be empty"),
    ('primary = "accuracy"', 'primary = "acuracy"', "primary: 'acuracy' is not among metrics, did you mean 'accu"),
    ('label = "crate"', 'label = "vit[dim=8]"', "contestants: label vit[dim=8] is given twice"),
    ('label = "crate"', 'label = "a/b"', "contestants[1] (a/b).label: 'a/b' must be up to 120 letters"),
    ('label = "crate"', 'label = "crate"\nrecipe = "plian"', "contestants: crate: unknown recipe 'plian', did"),
    ("[recipes.plain]", "[recipes.zebra]", "contestants: vit[dim=8]: unknown recipe 'plain' (known: zebra)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[f"{new}" for _, new, _ in REFUSED])
def test_a_suite_that_says_no_benchmark_is_refused_by_path(file: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SuiteError) as refused:
        load_suite(str(file))
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)


def test_a_suite_without_contestants_is_refused(file: Path) -> None:
    file.write_text(GOOD.partition("[[contestants]]")[0] + "contestants = []", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"plain\.contestants: unknown"):  # TOML puts a key into the last table
        load_suite(str(file))
    file.write_text("contestants = []\n" + GOOD.partition("[[contestants]]")[0], encoding="utf-8")
    with pytest.raises(SuiteError, match="contestants: must not be empty"):
        load_suite(str(file))


def test_every_fault_is_said_at_once(file: Path) -> None:
    file.write_text(GOOD.replace(EPOCHS, "epochs = true").replace("log = true", "log = 1"), encoding="utf-8")
    with pytest.raises(SuiteError, match=r"budget.epochs: .*; recipes.plain.learning_rate.log: "):
        load_suite(str(file))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smok", "unknown suite 'smok', did you mean 'smoke'"),
        ("SMOKE", "did you mean 'smoke'"),
        ("", "unknown suite ''"),
        ("nowhere.toml", "nowhere.toml: cannot be read as a suite"),
        ("smoke.yaml", r"smoke.yaml is no suite: give the name of one \(.*smoke.*\) or a .toml file"),
        ("folder/smoke", "is no suite"),
    ],
)
def test_a_suite_that_is_not_there_is_said_to_be_so(name: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(name)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match="cannot be read as a suite"):
        load_suite(str(tmp_path / "x.toml"))


@pytest.mark.parametrize(
    ("override", "epochs", "precision"),
    [
        ("budget.epochs=7", 7, "32"),
        (" budget.epochs = 7 ", 7, "32"),
        ('budget.precision="bf16-mixed"', 2, "bf16-mixed"),
        ("budget.precision=bf16-mixed", 2, "bf16-mixed"),
    ],
)
def test_an_override_takes_values_as_toml_has_them_and_bare_texts(
    file: Path, override: str, epochs: int, precision: str
) -> None:
    budget = load_suite(str(file), [override]).budget
    assert (budget.epochs, budget.precision) == (epochs, precision)


def test_overrides_reach_every_table_and_the_last_one_wins(file: Path) -> None:
    suite = load_suite(str(file), ["recipes.plain.learning_rate.value=0.5", "tuning.seed=3", "seeds=1", "seeds=2"])
    assert suite.recipes["plain"].learning_rate.value == 0.5
    assert suite.tuning.seed == 3
    assert suite.seeds == (0, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.epochs", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("budget.epochs=", "write KEY=VALUE"),
        ("budget.epoch=3", "budget.epoch: unknown, did you mean 'budget.epochs'"),
        ("epochs=3", "epochs: unknown"),
        ("budget.epochs=three", "budget.epochs: must be a valid integer, got 'three'"),
        ("budget=3", "budget: must be a table"),
        ("version.major=3", "version.major does not name a key of a table"),
        ("contestants.0.label=x", "contestants.0.label does not name a key of a table"),
        ("seeds=0", "seeds: 0 must be 1 to 10000"),
    ],
)
def test_an_override_of_nothing_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(str(file), [override])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("1", (0,)), ("0,2,5", (0, 2, 5)), ("5-7", (5, 6, 7)), ("0-1,7", (0, 1, 7)), ("2,2", (2,)),
     ("7,", None), ("0", None), ("-1", None), ("3-1", None), ("a", None), ("", None), ("1.5", None), ("²", None),
     ("0-999999999", None)],
)  # fmt: skip
def test_seeds_are_read_as_people_write_them(text: str, seeds: tuple[int, ...] | None) -> None:
    if seeds is None:
        with pytest.raises(SuiteError, match="write 3"):
            parse_seeds(text)
    else:
        assert parse_seeds(text) == seeds


def test_guests_join_after_the_file_s_contestants(file: Path) -> None:
    suite = load_suite(str(file))
    guest = Contestant(model="mine")
    assert with_guests(suite, [guest]).everyone == (*suite.contestants, guest)
    assert with_guests(suite, []) == suite


def test_a_guest_may_not_take_a_contestant_s_label(file: Path) -> None:
    with pytest.raises(ValueError, match="label crate is given twice"):
        with_guests(load_suite(str(file)), [Contestant(model="other", label="crate")])
