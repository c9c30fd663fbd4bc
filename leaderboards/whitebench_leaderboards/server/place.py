"""Where a page stands among files: which file an address of the server becomes, and links from one to another.

A file is named as what it is of, where that is plain; a name that is not, from a stranger or with options in brackets,
becomes its letters and digits with a hash behind `~`, which no plain name has: no two names share a file, on disks
that do not tell capitals from small letters too.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable
from html import escape, unescape
from urllib.parse import parse_qs, unquote, urlsplit

from whitebench_leaderboards.server.boards import FILES
from whitebench_leaderboards.server.link import name_in

LONGEST = 60
"""Characters of a name in a file's name."""

_PLAIN = re.compile(rf"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[a-z0-9](?:[a-z0-9._-]{{0,{LONGEST - 2}}}[a-z0-9])?")
"""Names that are files' names everywhere; Windows keeps a few for itself."""
_LINK = re.compile(r' (href|src|action)="(/[^"]*)"')
"""A link of ours: what strangers say has its quotation marks escaped."""


def file_of(address: str) -> str | None:
    """Return the path, below the folder of all, of the file that a page of the server becomes; None for none."""
    split = urlsplit(address)
    asked = parse_qs(split.query)
    overrides = asked.get("overrides", [""])[0]
    place: str | None = None
    match [name_in(unquote(part)) for part in split.path.split("/")[1:]]:
        case [""]:
            place = "index.html"
        case [*parts] if "" in parts:
            pass  # no page is of nothing
        case ["static", name]:
            place = f"static/{name}"
        case ["api", "v1", "suites"]:
            place = "api/v1/suites.json"
        case ["api", "v1", "boards", suite]:
            place = f"api/v1/boards/{_suite(suite, overrides)}.json"
        case ["api", "v1", "cells", suite, label, task, seed]:
            place = f"api/v1/cells/{_suite(suite, overrides)}/{name_of(label)}/{name_of(task)}/{name_of(seed)}.json"
        case ["suite", suite, *of_suite]:
            inside = _inside(of_suite, asked.get("with", []))
            place = f"suite/{_suite(suite, overrides)}/{inside}" if inside else None
    return place


def name_of(name: str) -> str:
    """Return a name as part of a file's path: small letters, digits and `.`, `_`, `-`, `~`, which need no escape."""
    if _PLAIN.fullmatch(name):
        return name
    letters = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST]
    return f"{letters}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def addresses_in(page: str) -> list[str]:
    """Return every address of the server that a page links to or shows."""
    return [unescape(found[2]) for found in _LINK.finditer(page)]


def relink(page: str, to: Callable[[str], str | None]) -> str:
    """Return a page whose links to addresses of the server lead where `to` says; a link that leads nowhere is none."""

    def linked(found: re.Match[str]) -> str:
        target = to(unescape(found[2]))
        return "" if target is None else f' {found[1]}="{escape(target)}"'

    return _LINK.sub(linked, page)


def path_between(here: str, there: str) -> str:
    """Return how a file is reached from another, both below the same folder."""
    return posixpath.relpath(there, posixpath.dirname(here))


def _inside(parts: list[str], labels: list[str]) -> str | None:
    """Return where a page of a suite is in the suite's folder."""
    place: str | None = None
    match parts:
        case []:
            place = "index.html"
        case ["charts"]:
            place = "charts.html"
        case [file] if file in {f"board.{ending}" for ending in FILES}:
            place = file
        case ["contestant", label]:
            place = f"contestant/{name_of(label)}.html"
        case ["cell", label, task, seed]:
            place = f"cell/{name_of(label)}/{name_of(task)}/{name_of(seed)}.html"
        case ["figure", label, task, seed, picture]:
            place = f"figure/{name_of(label)}/{name_of(task)}/{name_of(seed)}/{name_of(picture)}.svg"
        case ["compare"] if labels:
            place = f"compare/{'/'.join(map(name_of, labels))}.html"
    return place


def _suite(suite: str, overrides: str) -> str:
    return name_of(f"{suite}\n{overrides}") if overrides else name_of(suite)
