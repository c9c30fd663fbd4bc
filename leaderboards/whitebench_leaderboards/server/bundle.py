"""The site as files, for any web host and for the disk: every page that a server would answer with, asked for once.

The pages are the server's own, asked for in this process: first those that are known to be, then what they link to.
Links lead from file to file; one to what only a server can answer is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from starlette.types import Message, Scope

from whitebench import __version__
from whitebench.address import exists, resolve_uri, without_password
from whitebench.errors import WhitebenchError
from whitebench.suite import load_suite
from whitebench.wording import listed, plain
from whitebench_leaderboards.server import link
from whitebench_leaderboards.server.app import make_pages
from whitebench_leaderboards.server.asset import BESIDE, content
from whitebench_leaderboards.server.folder import Folder
from whitebench_leaderboards.server.page import Site, make_templates, origin_of
from whitebench_leaderboards.server.place import addresses_in, file_of, path_between, relink
from whitebench_leaderboards.server.reader import Reader, Shelf, open_reader

Told = Callable[[int, int], None]
"""Is told how many files are written, and how many are known of."""


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """What was written."""

    num_pages: int
    num_files: int
    num_bytes: int
    left_out: tuple[str, ...]
    """Suites that the store has cells of and whose plan is not known."""


def bundle(
    path: Path,
    suites: Sequence[str],
    *,
    store: str | None,
    plugins: Sequence[Path],
    is_forced: bool,
    told: Told,
) -> Bundled:
    """Write all that a store has of some suites, or of all, as files into a folder.

    Raises:
        WhitebenchError: the folder is another's or cannot be written, or a suite or the store cannot be read.
    """
    folder = Folder(path, is_forced=is_forced)
    uri = resolve_uri(store)
    reader = open_reader(uri, files=suites, plugins=plugins)
    reader.refresh()
    shown, left_out = _shelves(reader, [load_suite(one).name for one in suites])
    if not shown:
        where = f"the store {without_password(uri)}" + ("" if exists(uri) else ", which is not there,")
        raise WhitebenchError(f"{where} has no cells of {_which(suites, left_out)}")
    words = ["whitebench", "bundle", "DIR", *(Path(one).name for one in suites)]
    words += [word for plugin in plugins for word in ("--plugin", plugin.name)]
    write_pages(reader, shown, folder, command=shlex.join(words), plugins=[one.name for one in plugins], told=told)
    num_pages = sum(file.endswith(".html") for file in folder.written)
    return Bundled(
        num_pages=num_pages, num_files=len(folder.written), num_bytes=folder.num_bytes, left_out=tuple(left_out)
    )


def write_pages(
    reader: Reader,
    shown: Sequence[Shelf],
    folder: Folder,
    *,
    command: str,
    plugins: Sequence[str] = (),
    told: Told,
) -> None:
    """Write every page of the boards `shown`, which `reader` holds from now on; raises WhitebenchError."""
    reader.hold(shown)
    now = datetime.now(UTC)
    site = Site(plugins=tuple(plugins), edition="bundle", origin=origin_of(command, now), policy=BESIDE)
    app = make_pages(reader, site, make_templates(site))
    is_whole = False
    try:
        _write_all(app, list(_known(reader)), folder, told)
        is_whole = True
    finally:
        folder.close(
            {"whitebench": __version__, "made": now.isoformat(timespec="seconds"), "command": command},
            is_whole=is_whole,
        )


def _write_all(app: FastAPI, addresses: list[str], folder: Folder, told: Told) -> None:
    """Write what stands under `addresses`, and under every address that it links to."""
    known, done = dict.fromkeys(addresses), 0
    with start_blocking_portal() as portal:
        while addresses:
            address = addresses.pop()
            file = file_of(address)
            if file is not None:
                kind, body = portal.call(_content, app, address)
                if kind.startswith("text/html"):
                    page = body.decode()
                    new = dict.fromkeys(one for one in addresses_in(page) if one not in known)
                    known |= new
                    addresses += new
                    body = relink(page, partial(_path, file)).encode()
                folder.write(file, body, address)
            done += 1
            told(done, len(known))


async def _content(app: FastAPI, address: str) -> tuple[str, bytes]:
    """Return the type and the bytes of what stands under an address; raises what goes wrong."""
    if address.startswith("/static/"):
        return "", content(address.removeprefix("/static/"))
    split = urlsplit(address)
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "server": ("localhost", 80), "root_path": "", "headers": [(b"host", b"localhost")],
        "path": unquote_to_bytes(split.path).decode(), "query_string": split.query.encode(),
    }  # fmt: skip
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    await app(scope, receive, send)
    assert said[0]["status"] == 200, f"{address} answers {said[0]['status']}"
    kind = dict(said[0]["headers"]).get(b"content-type", b"").decode()
    return kind, b"".join(message.get("body", b"") for message in said[1:])


def _path(here: str, address: str) -> str | None:
    there = file_of(address)
    return None if there is None else path_between(here, there)


def _known(reader: Reader) -> Iterator[str]:
    """Yield the addresses that no page has to link to."""
    yield from ("/", f"{link.PREFIX}/suites")
    for shelf in reader.shelves():
        yield link.suite(shelf.suite, shelf.overrides)
        yield link.board_data(shelf.suite, shelf.overrides)
        for record in reader.ledger(shelf.suite, shelf.overrides).records:
            yield link.cell_data(record.cell, shelf.overrides)


def _shelves(reader: Reader, names: Sequence[str]) -> tuple[list[Shelf], list[str]]:
    """Return the boards to be shown, those of the suites `names` or of all, and what cannot be."""
    wanted = [one for one in reader.shelves() if one.is_stored and (not names or one.suite in names)]
    return [one for one in wanted if one.is_known], [_told(one) for one in wanted if not one.is_known]


def _told(shelf: Shelf) -> str:
    return plain(f"{shelf.suite} with {shelf.overrides}" if shelf.overrides else shelf.suite)


def _which(suites: Sequence[str], left_out: Sequence[str]) -> str:
    if left_out:
        return f"suites that are known here; name the files of {listed(left_out)}: whitebench bundle DIR FILE.toml"
    name = plain(suites[0]) if suites else "smoke"
    return f"{listed(map(plain, suites)) if suites else 'any suite'}: run one first, whitebench run {name}"
