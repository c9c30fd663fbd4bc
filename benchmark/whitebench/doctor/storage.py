"""The store: where it is, whether it can be read and written, what is in it, and what earlier runs left beside it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from whitebench.address import PORTS, claims_url, home_of, sqlite_file, without_password
from whitebench.claims import Claims
from whitebench.database import NETWORKED, filesystem_of
from whitebench.doctor import database
from whitebench.doctor.database import Vendor
from whitebench.doctor.finding import Finding
from whitebench.doctor.machine import ELSEWHERE, GB, size

LARGE = 5 * GB


def look_at_store(uri: str) -> Iterator[Finding]:
    """Say whether results can be read from `uri` and written to it."""
    file = sqlite_file(uri)
    if file is None:
        yield from _server(uri)
    else:
        yield from _file(uri, file)


def look_at_file_system(uri: str) -> Iterator[Finding]:
    """Name the file system under a SQLite store: on one between machines, locks cannot be relied on."""
    file = sqlite_file(uri)
    if file is None:
        return
    kind = filesystem_of(file)
    if kind in NETWORKED:
        detail = f"{kind} under {file}: SQLite's locks cannot be relied on between machines, so a run is refused"
        yield Finding(what="file system", state="broken", detail=detail, mend=ELSEWHERE)
    else:
        yield Finding(what="file system", state="ok", detail=f"{kind} under {file}")


def look_at_lock(uri: str) -> Iterator[Finding]:
    """Say what is being run on the store, and whether its file is kept from being written."""
    running = _workers(uri)
    file = sqlite_file(uri)
    if file is None or not file.exists() or not os.access(file, os.W_OK) or _is_read_only(file):
        if running:
            yield Finding(what="lock", state="ok", detail=running)
    elif database.is_locked(file):
        detail = f"another process keeps {file.name} from being written" + (f"; {running}" if running else "")
        yield Finding(what="lock", state="warning", detail=detail, mend=f"fuser -v {shlex.quote(str(file))}")
    else:
        yield Finding(what="lock", state="ok", detail=running or "nothing is being run on this store")


def _workers(uri: str) -> str:
    """Return who works on the store now, in words, or nothing."""
    file = sqlite_file(claims_url(uri))
    if file is None or not Path(f"{file}-wal").exists():  # nobody has it open, and to look would change the folder
        return ""
    claims = Claims(claims_url(uri), patience=0.0)
    owners = sorted({str(owner) for owner in claims.living().values()})
    claims.close()
    return f"worked on by {' and by '.join(owners)}" if owners else ""


def look_at_trials(uri: str) -> Iterator[Finding]:
    """Say what is in Optuna's file beside the store."""
    file = home_of(uri) / "whitebench.optuna.db"
    if not file.exists():
        yield Finding(what="trials", state="ok", detail=f"{file} will be made by the first run that tunes")
        return
    whole = f"{file} ({size(file.stat().st_size)})"
    yield _look_inside("trials", f"sqlite:///{file}", database.OPTUNA, whole)


def look_at_leftovers(uri: str) -> Iterator[Finding]:
    """Say what earlier runs left beside the store, and how large it is."""
    home = home_of(uri) / ".whitebench"
    sizes = {one.name: _size_of(one) for one in sorted(home.iterdir()) if one.is_dir()} if home.is_dir() else {}
    listing = ", ".join(f"{name} {size(total)}" for name, total in sizes.items())
    if sum(sizes.values()) < LARGE:
        yield Finding(what="left over", state="ok", detail=f"in {home}: {listing or 'nothing'}")
        return
    is_idle = not _workers(uri)
    detail = f"in {home}: {listing}; interrupted fits go on from what is in fits"
    mend = f"rm -r {shlex.quote(str(home))}/fits" if is_idle else ""
    yield Finding(what="left over", state="warning", detail=detail, mend=mend)


def _file(uri: str, file: Path) -> Iterator[Finding]:
    there = _nearest(file)
    # A folder, too: SQLite makes two files beside the one it writes.
    closed = next((one for one in (file, there) if one.exists() and not os.access(one, os.R_OK | os.W_OK)), None)
    if closed is not None or _is_read_only(there):
        blocked = closed or there
        reason = "on a file system that is read-only" if _is_read_only(there) else "not yours to read and write"
        mend = ELSEWHERE if _is_read_only(there) else _permit(blocked)
        yield Finding(what="store", state="broken", detail=f"{uri}: {blocked} is {reason}", mend=mend)
    if not file.exists():
        yield Finding(what="store", state="ok", detail=f"{uri} will be made by the first run")
    elif os.access(file, os.R_OK):
        yield _look_inside("store", uri, database.MLFLOW, f"{uri} ({size(file.stat().st_size)})")


def _server(uri: str) -> Iterator[Finding]:
    parsed = urlparse(uri)
    scheme = parsed.scheme.partition("+")[0]
    address = (parsed.hostname or "localhost", parsed.port or PORTS[scheme])
    is_for_the_driver = "," in address[0] or "host=" in parsed.query  # several hosts, or one that is said elsewhere
    try:
        if not is_for_the_driver:
            socket.create_connection(address, timeout=database.SECONDS).close()
    except OSError as error:
        detail = f"{without_password(uri)}: nobody answers at {address[0]}:{address[1]} ({error})"
        yield Finding(what="store", state="broken", detail=detail, mend=f"nc -vz {address[0]} {address[1]}")
        return
    if scheme in ("http", "https"):
        yield _tracking_server(uri)
        return
    yield _look_inside("store", uri, database.MLFLOW, without_password(uri))


def _tracking_server(uri: str) -> Finding:
    from whitebench.errors import StoreError
    from whitebench.tags import Tag
    from whitebench.tracking import Tracking

    try:
        with _impatient():
            runs = Tracking(uri, patience=0.0).runs_anywhere({Tag.KIND: "cell"})
    except StoreError as error:
        return Finding(what="store", state="broken", detail=without_password(str(error)), mend=_ask(uri))
    suites = len({run.experiment for run in runs})
    contents = f"{_count(suites, 'suite')}, {_count(len(runs), 'cell run')}"
    return Finding(what="store", state="ok", detail=f"{without_password(uri)}: {contents}")


def _look_inside(what: str, uri: str, vendor: Vendor, whole: str) -> Finding:
    """Return what a database holds, or why a run could not use it; `whole` is how it is called."""
    from sqlalchemy.exc import SQLAlchemyError

    file = sqlite_file(uri)
    try:
        with database.reading(uri) as connection:
            age = database.age_of(connection, vendor)
            if age == "current":
                counts = [_count(number, noun) for noun, number in vendor.count(connection).items()]
                return Finding(what=what, state="ok", detail=f"{whole}: {', '.join(counts)}")
    except SQLAlchemyError as error:
        text = " ".join(str(error).split()).partition(" [SQL:")[0].partition(" (Background")[0]
        detail = f"{whole} cannot be read: {without_password(text)[:300]}"
        return Finding(what=what, state="broken", detail=detail, mend=_aside(file) if file else "")
    if age == "empty":
        return Finding(what=what, state="ok", detail=f"{whole}: empty; the first run makes its tables")
    if age == "foreign":
        detail = f"{whole} holds tables that are not {vendor.package}'s"
        return Finding(what=what, state="broken", detail=detail, mend=_aside(file) if file else ELSEWHERE)
    mends = {
        "older": vendor.upgrade.format(uri=shlex.quote(without_password(uri))),
        "newer": f"python -m pip install --upgrade {vendor.package}",
    }
    detail = f"{whole}: its tables are {age} than the {vendor.package} that is installed here"
    return Finding(what=what, state="broken", detail=detail, mend=mends[age])


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Let MLflow ask a server once and not wait long: it else asks for minutes."""
    ours = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(database.SECONDS)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ask(uri: str) -> str:
    return f"curl --max-time {database.SECONDS} {shlex.quote(without_password(uri))}"


def _aside(file: Path) -> str:
    return f"mv {shlex.quote(str(file))} {shlex.quote(f'{file}.aside')}"


def _permit(path: Path) -> str:
    is_ours = path.stat().st_uid == os.getuid()
    return f"chmod u+rw{'x' * path.is_dir()} {shlex.quote(str(path))}" if is_ours else ELSEWHERE


def _nearest(path: Path) -> Path:
    """Return the folder that holds `path`, or would once it and its parents are made."""
    return next(one for one in path.parents if one.is_dir())


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _size_of(folder: Path) -> int:
    """Return the bytes in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
