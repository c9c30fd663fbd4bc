"""The doctor: each fault in a small true world is found, named, and comes with the command that mends it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from tests.benchmark.conftest import NewStore
from tests.conftest import ROOT, Type
from whitebench import cli
from whitebench.claims import Claims
from whitebench.commands.doctor import _ending
from whitebench.doctor import Finding, examine, machine, plugins, software, storage
from whitebench.doctor.finding import guarded


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def faults(findings: Iterable[Finding]) -> list[Finding]:
    return [one for one in findings if one.state != "ok"]


@pytest.fixture
def store(tmp_path: Path, new_store: NewStore) -> Path:
    """A store's file, and nothing else in its folder."""
    new_store(tmp_path / "home")
    return tmp_path / "home" / "whitebench.db"


def uri(file: Path) -> str:
    return f"sqlite:///{file}"


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a file system in memory; skips the test where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def distribution(folder: Path, name: str, version: str, *headers: str) -> None:
    """Write what pip leaves of an installed distribution."""
    home = folder / f"{name}-{version}.dist-info"
    home.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *headers]
    (home / "METADATA").write_text("\n".join(lines) + "\n")


# Looking


def test_a_look_that_raises_is_itself_a_finding_and_keeps_what_was_found_before() -> None:
    def look() -> Iterator[Finding]:
        yield Finding(what="roof", state="ok", detail="tight")
        raise RuntimeError("the ladder\nbroke")

    first, second = guarded("roof", look)
    assert first.state == "ok"
    assert (second.what, second.state) == ("roof", "broken")
    assert second.detail == "could not be looked at: RuntimeError: the ladder broke"


def test_a_look_that_never_ends_is_given_up() -> None:
    def look() -> Iterator[Finding]:
        yield Finding(what="roof", state="ok", detail="tight")
        threading.Event().wait()

    first, second = guarded("roof", look, seconds=0.2)
    assert first.state == "ok"
    assert second.detail == "gave no answer in 0.2 s"


def test_looking_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(examine(None, []))
    assert list(tmp_path.iterdir()) == []
    assert {one.what: one.detail for one in found}["store"].endswith("whitebench.db will be made by the first run")


def test_looking_at_a_store_leaves_it_and_its_folder_as_they_were(store: Path) -> None:
    before = {path: path.read_bytes() for path in store.parent.iterdir()}
    assert before
    for look in (storage.look_at_store, storage.look_at_lock, storage.look_at_trials, storage.look_at_leftovers):
        assert faults(look(uri(store))) == []
    assert {path: path.read_bytes() for path in store.parent.iterdir()} == before


def test_everything_that_is_looked_at_is_in_the_docs(store: Path) -> None:
    docs = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    looked_at = {one.what for one in examine(uri(store), [])}
    assert set(re.findall(r"^\| `(.+?)` \|", docs, re.MULTILINE)) == looked_at


# Software


def test_a_library_that_is_too_old_is_named_with_the_version_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "click", "7.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = only(faults(software.look_at_libraries()))
    assert (finding.what, finding.state, finding.detail) == ("libraries", "broken", "click 7.0 is not >=8.2")
    assert finding.mend == "python -m pip install 'click>=8.2'"


def test_a_library_that_is_missing_is_named_and_one_of_an_extra_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("Requires-Dist: nobody-has-this>=2", 'Requires-Dist: nor-this>=1; extra == "dev"', "Requires-Dist: click")
    distribution(tmp_path, "whitebench", "0.1.0", *asked)
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = only(faults(software.look_at_libraries()))
    assert finding.detail == "nobody-has-this is not installed"
    assert finding.mend == "python -m pip install 'nobody-has-this>=2'"


def test_a_python_that_is_too_old_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "whitebench", "0.1.0", "Requires-Python: >=99")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = only(software.look_at_python())
    assert finding.state == "broken"
    assert "needs >=99" in finding.detail
    assert "-m venv" in finding.mend


def test_an_installation_of_another_version_than_the_code_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "whitebench", "0.0.9")
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = only(software.look_at_whitebench())
    assert (finding.state, finding.mend) == ("warning", f"python -m pip install --editable {ROOT}")


def test_git_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = only(software.look_at_git())
    assert finding.state == "hint"
    assert finding.mend.endswith("install git")


def test_the_driver_of_a_store_on_postgresql_is_needed_there_and_optional_elsewhere() -> None:
    needed = only(software.look_at_postgresql("postgresql+pg8000://me@host/whitebench"))
    assert (needed.state, needed.mend) == ("broken", "python -m pip install pg8000")
    assert only(software.look_at_postgresql("sqlite:////whitebench.db")).state in ("ok", "hint")


# Plugins


def test_a_plugin_that_fails_is_broken_with_its_reason_and_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a plugin.py"
    file.write_text("raise RuntimeError('no such luck')")
    fault, whole = plugins.look_at_plugins([file])
    assert fault.state == "broken"
    assert "RuntimeError: no such luck" in fault.detail
    assert fault.mend == f"${{EDITOR:-vi}} '{file}'"
    assert whole.state == "ok"
    assert re.match(r"\d+ models, \d+ tasks, \d+ metrics, ", whole.detail)


def test_a_plugin_file_that_is_gone_is_said_and_the_others_are_loaded(
    tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone.py"
    monkeypatch.setenv("WHITEBENCH_PLUGINS", f"{gone}{os.pathsep}{plugin}")
    fault, whole = plugins.look_at_plugins([gone, plugin])
    assert fault.detail == f"WHITEBENCH_PLUGINS: there is no file {gone}"
    assert fault.mend == "unset WHITEBENCH_PLUGINS"
    assert "local file" in whole.detail


def test_a_name_with_two_owners_names_both_and_the_one_that_is_not_ours_gives_way(tmp_path: Path) -> None:
    file = tmp_path / "another_vit.py"
    file.write_text(
        "import whitebench_models\nfrom whitebench import hookimpl\n@hookimpl\ndef register_models():\n"
        "    return [one for one in whitebench_models.register_models() if one.name == 'vit']\n"
    )
    fault = only(faults(plugins.look_at_plugins([file])))
    assert fault.detail.startswith("model 'vit' cannot be used: it is registered by whitebench ")
    assert str(file) in fault.detail
    assert fault.mend == f"${{EDITOR:-vi}} {file}"


def test_a_strangers_distribution_that_fails_is_to_be_uninstalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "bench-extras", "3.1")
    (tmp_path / "bench-extras-3.1.dist-info" / "entry_points.txt").write_text("[whitebench]\nx = bench_extras\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fault = only(faults(plugins.look_at_plugins([])))
    assert "bench-extras 3.1 (bench_extras): ModuleNotFoundError" in fault.detail
    assert fault.mend == "python -m pip uninstall bench-extras"


# Machine


def test_a_torch_that_cannot_use_the_gpu_of_the_machine_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this torch can use this machine's GPU")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = only(machine.look_at_torch())
    assert finding.state == "warning"
    assert "NVIDIA GPU" in finding.detail
    assert finding.mend.startswith("nvidia-smi" if torch.version.cuda else "python -m pip install --force-reinstall")


def test_memory_within_a_container_is_what_the_container_leaves(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("300000000\n")
    (tmp_path / "memory.current").write_text("200000000\n")
    finding = only(machine.look_at_memory(tmp_path))
    assert finding.state == "warning"
    assert "its container allows 100 MB more" in finding.detail
    assert finding.mend == "whitebench run SUITE --parallel 1"


def test_a_container_without_a_limit_has_the_machines_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("200000000\n")
    assert "container" not in only(machine.look_at_memory(tmp_path)).detail


def test_a_disk_that_is_nearly_full_is_a_warning_and_a_full_one_is_broken(tmp_path: Path) -> None:
    for room, state in (("1500m", "warning"), ("50m", "broken")):
        with mounted(tmp_path, f"size={room}"):
            finding = only(machine.look_at_disk("disk", tmp_path / "not" / "made"))
            assert (finding.state, finding.mend) == (state, machine.ELSEWHERE)


def test_little_shared_memory_is_a_warning(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=64m"):
        finding = only(machine.look_at_shared_memory(tmp_path))
    assert finding.state == "warning"
    assert "--shm-size=1g" in finding.detail


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (15e9, "15 GB"), (3e12, "3 TB")]
)
def test_a_size_is_said_as_people_say_it(count: float, text: str) -> None:
    assert machine.size(count) == text


# Store


def test_a_store_says_what_it_holds(store: Path) -> None:
    finding = only(storage.look_at_store(uri(store)))
    assert (finding.what, finding.state) == ("store", "ok")
    assert finding.detail.endswith(": 0 suites, 0 cell runs")


def test_a_store_that_a_newer_mlflow_made_asks_for_a_newer_mlflow(store: Path) -> None:
    execute(store, "update alembic_version set version_num = 'of-tomorrow'")
    finding = only(storage.look_at_store(uri(store)))
    assert finding.state == "broken"
    assert "its tables are newer than the mlflow that is installed" in finding.detail
    assert finding.mend == "python -m pip install --upgrade mlflow"


def test_a_store_that_an_older_mlflow_made_asks_to_be_upgraded(store: Path) -> None:
    execute(store, "update alembic_version set version_num = '451aebb31d03'")  # of MLflow 1.0
    finding = only(storage.look_at_store(uri(store)))
    assert (finding.state, finding.mend) == ("broken", f"mlflow db upgrade {uri(store)}")


def test_a_file_that_is_no_database_is_to_be_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "whitebench.db"
    file.write_text("not a database at all, " * 10)
    finding = only(storage.look_at_store(uri(file)))
    assert finding.state == "broken"
    assert "file is not a database" in finding.detail
    assert finding.mend == f"mv {file} {file}.aside"


def test_a_database_of_something_else_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "whitebench.db"
    execute(file, "create table recipes (name text)")
    finding = only(storage.look_at_store(uri(file)))
    assert finding.state == "broken"
    assert "tables that are not mlflow's" in finding.detail


def test_an_empty_file_will_be_given_its_tables(tmp_path: Path) -> None:
    (tmp_path / "whitebench.db").touch()
    assert only(storage.look_at_store(uri(tmp_path / "whitebench.db"))).state == "ok"


def test_a_store_on_a_read_only_file_system_can_be_read_and_says_where_to_write(store: Path) -> None:
    kept = store.read_bytes()
    with mounted(store.parent, "size=50m"):
        store.write_bytes(kept)
        subprocess.run(["mount", "-o", "remount,ro", str(store.parent)], check=True)
        fault, whole = storage.look_at_store(uri(store))
    assert (fault.state, fault.mend) == ("broken", machine.ELSEWHERE)
    assert "read-only" in fault.detail
    assert whole.detail.endswith("0 suites, 0 cell runs")


@pytest.mark.skipif(os.getuid() == 0, reason="everything is allowed to root")
def test_a_store_that_may_not_be_written_says_how_to_allow_it(store: Path) -> None:
    store.chmod(0o400)
    fault, whole = storage.look_at_store(uri(store))
    assert (fault.state, fault.mend) == ("broken", f"chmod u+rw {store}")
    assert whole.state == "ok"


def test_sqlite_on_a_file_system_between_machines_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4"), SimpleNamespace(mountpoint=str(tmp_path), fstype="nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    finding = only(storage.look_at_file_system(uri(tmp_path / "a" / "whitebench.db")))
    assert (finding.state, finding.mend) == ("broken", machine.ELSEWHERE)
    assert "nfs4" in finding.detail
    assert only(storage.look_at_file_system("sqlite:////whitebench.db")).state == "ok"


def test_a_file_that_another_process_keeps_from_being_written_is_a_warning(store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        finding = only(storage.look_at_lock(uri(store)))
    assert (finding.state, finding.mend) == ("warning", f"fuser -v {store}")
    assert only(storage.look_at_lock(uri(store))).state == "ok"


def test_who_works_on_the_store_is_named_with_its_process(store: Path) -> None:
    claims = Claims(uri(store))
    claims.take("cell/a")
    finding = only(storage.look_at_lock(uri(store)))
    assert (finding.state, finding.detail) == ("ok", f"worked on by {claims.owner}")
    claims.close()
    assert "nothing is being run" in only(storage.look_at_lock(uri(store))).detail


def test_trials_of_a_newer_optuna_ask_for_a_newer_optuna(tmp_path: Path) -> None:
    from optuna.trial import create_trial

    from whitebench.tuning import Storage

    where = uri(tmp_path / "whitebench.db")
    trials = Storage.of_store(where)
    trials.add("one", "maximize", create_trial(value=0.5))
    assert trials.file is not None
    assert only(storage.look_at_trials(where)).detail.endswith(": 1 study, 1 trial")
    execute(trials.file, "update alembic_version set version_num = 'v99.0.0.a'")
    assert only(storage.look_at_trials(where)).mend == "python -m pip install --upgrade optuna"
    execute(trials.file, "update alembic_version set version_num = 'v3.0.0.a'")
    assert only(storage.look_at_trials(where)).mend == f"optuna storage upgrade --storage {uri(trials.file)}"


def test_what_earlier_runs_left_is_listed_with_its_size(store: Path) -> None:
    fits = store.parent / ".whitebench" / "fits" / "one"
    fits.mkdir(parents=True)
    (fits / "last.ckpt").write_bytes(bytes(1_500_000))
    finding = only(storage.look_at_leftovers(uri(store)))
    assert (finding.state, finding.detail) == ("ok", f"in {store.parent}/.whitebench: fits 1.5 MB")


# Servers


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_not_there_is_said_at_once_and_its_password_is_not(scheme: str) -> None:
    port = free_port()
    finding = only(storage.look_at_store(f"{scheme}://me:secret@127.0.0.1:{port}/whitebench"))
    assert finding.state == "broken"
    assert f"nobody answers at 127.0.0.1:{port}" in finding.detail
    assert finding.mend == f"nc -vz 127.0.0.1 {port}"
    assert "secret" not in finding.detail


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_a_server_that_takes_calls_and_never_answers_is_given_up(scheme: str) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        where = f"{scheme}://me:secret@127.0.0.1:{mute.getsockname()[1]}/whitebench"
        began = time.monotonic()
        finding = only(storage.look_at_store(where))
        assert time.monotonic() - began < 60  # MLflow by itself asks for 4 minutes and more
    assert finding.state == "broken"
    assert "secret" not in finding.detail + finding.mend


class Answering(BaseHTTPRequestHandler):
    """An MLflow server without experiments."""

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_that_answers_says_what_it_holds() -> None:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        finding = only(storage.look_at_store(f"http://127.0.0.1:{server.server_address[1]}"))
        server.shutdown()
    assert (finding.state, finding.detail.partition(": ")[2]) == ("ok", "0 suites, 0 cell runs")


# The command


def test_the_command_exits_with_1_where_something_is_broken_and_the_rest_is_still_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect(tmp_path / "whitebench.db")) as other:  # somebody else's tables
        other.execute("create table alembic_version (version_num text)")
        other.execute("create table experiments (x)")
        other.execute("insert into alembic_version values ('ffffffffffff')")
        other.commit()
    done = CliRunner().invoke(cli.cli, ["doctor", "--json"], standalone_mode=False)
    assert done.return_value == 1, done.output
    found = {one["what"]: one for one in json.loads(done.output)["findings"]}
    assert found["store"]["state"] == "broken"
    assert found["fork server"]["state"] == "ok"


@pytest.mark.slow
def test_a_library_that_no_fit_could_load_is_found_in_a_fits_process(tmp_path: Path, type_in: Type) -> None:
    shelf, home = tmp_path / "shelf", tmp_path / "home"
    (shelf / "lightning").mkdir(parents=True)
    home.mkdir()
    (shelf / "lightning" / "__init__.py").write_text("raise ImportError('broken on purpose')")
    path = os.pathsep.join(filter(None, (str(shelf), os.environ.get("PYTHONPATH"))))
    done = type_in("whitebench", "doctor", env={"PYTHONPATH": path}, cwd=home)
    assert done.returncode == 1
    assert "cannot be loaded: ImportError" in re.sub(r"\s+", " ", done.stdout)
    assert "\n  python -c 'import whitebench.fitting'\n" in done.stdout
    assert "\nSomething that is needed does not work: 1 broken" in done.stdout


@pytest.mark.parametrize("columns", [80, 200])
def test_a_command_to_type_is_whole_on_a_line_however_narrow_the_terminal(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    broken = tmp_path / ("long-" * 20 + "name.py")
    broken.write_text("raise RuntimeError('no such luck')")
    shown = CliRunner().invoke(cli.cli, ["doctor", "--plugin", str(broken)], standalone_mode=False).output
    table, _, ending = shown.partition("What to type:")
    assert max(map(len, table.splitlines())) <= columns
    assert f"\nplugins (broken):\n  ${{EDITOR:-vi}} {broken}\n" in ending


def test_the_end_counts_what_is_not_as_it_should_be() -> None:
    hint = Finding(what="git", state="hint", detail="not here", mend="sudo apt install git")
    fine = Finding(what="torch", state="ok", detail="here")
    assert _ending([fine])[-1] == "Everything that is needed works."
    assert _ending([fine, hint])[-1] == "Everything that is needed works: 1 hint."


def test_without_rich_the_findings_are_plain_lines(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n"
    run = "from whitebench.cli import main; sys.argv = ['whitebench', 'doctor']; main()"
    done = subprocess.run([sys.executable, "-c", hide + run], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "\ntorch: ok: " in done.stdout
    assert "git: " in done.stdout or shutil.which("git") is None
