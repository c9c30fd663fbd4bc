"""How a page is made: its template, what every page is told, and the tag by which a browser knows that it has it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import AfterValidator
from starlette.responses import HTMLResponse, Response

from whitebench import __version__
from whitebench_leaderboards.notation import ARROWS, has_own_unit, human, plain
from whitebench_leaderboards.server import link
from whitebench_leaderboards.server.asset import inside
from whitebench_leaderboards.server.strip import WIDTH
from whitebench_leaderboards.sheet import budget, legend, noise, title

MOST_COMPARED = 6
"""Contestants side by side: as many as there are colours that can be told apart."""

MOST_UNDER_WAY = 8
"""Studies that are named one by one."""

TAG = "the-tag-of-this-page"
"""What stands in a page where its own tag is to stand."""

MOST_KEPT = 32
"""Pages that are kept made."""

Name = Annotated[str, AfterValidator(link.name_in)]
"""A suite, contestant, task or picture in an address."""

Overrides = Annotated[str, Query(description="The suite's overrides as one text; empty for the suite as it stands.")]


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all pages are told."""

    plugins: tuple[str, ...] = ()
    """The names of local plugin files, for commands that are suggested."""
    has_mlflow: bool = False
    """Whether MLflow's own pages are beside ours."""
    edition: Literal["served", "bundle", "handout"] = "served"
    """Whether a server answers, the pages are files beside each other, or one file stands alone."""
    origin: str = ""
    """How and when files were made, for their foot; empty where a server answers."""
    policy: str = ""
    """What a browser may do with a page, where no server says it beside the page."""


def make_templates(site: Site) -> Environment:
    """Return the pages' templates: everything printed is escaped, and a name that is missing is an error."""
    templates = Environment(
        loader=PackageLoader("whitebench_leaderboards.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["split"] = str.split
    templates.globals |= {
        "arrows": ARROWS,
        "budget": budget,
        "has_own_unit": has_own_unit,
        "human": human,
        "inside": inside() if site.edition == "handout" else None,
        "legend": legend,
        "link": link,
        "moment": moment,
        "noise": noise,
        "most_compared": MOST_COMPARED,
        "most_under_way": MOST_UNDER_WAY,
        "plain": plain,
        "site": site,
        "strip_width": WIDTH,
        "tag_place": TAG,
        "title_of": title,
        "version": __version__,
        "zip": zip,
    }
    return templates


class Press:
    """Makes pages, and keeps what it made for as long as what is shown has not changed."""

    def __init__(self, templates: Environment) -> None:
        """Begin with nothing kept."""
        self.templates = templates
        self._kept: OrderedDict[tuple[str, Hashable], tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self, request: Request, name: str, told: Callable[[], dict[str, Any]], *, state: Hashable = None
    ) -> Response:
        """Answer with a page, or say that it is the one that the browser has.

        Args:
            request: which page.
            name: its template.
            told: what the template is told; asked only where the page has to be made.
            state: what changes whenever the page does; None for a page that is made every time.
        """
        key = (str(request.url), state)
        with self._lock:
            found = self._kept.get(key) if state is not None else None
        if found is None:
            text = self.templates.get_template(name).render(**told())
            found = hashlib.sha256(text.encode()).hexdigest()[:24], text
            if state is not None:
                self._keep(key, found)
        tag, text = found
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == f'"{tag}"':
            return Response(status_code=304, headers=headers)
        return HTMLResponse(text.replace(TAG, tag, 1), headers=headers)  # the page knows itself which one it is

    def _keep(self, key: tuple[str, Hashable], page: tuple[str, str]) -> None:
        with self._lock:
            self._kept[key] = page
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)


def moment(milliseconds: float) -> str:
    """Return a time, given in milliseconds since 1970, as pages say it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def origin_of(command: str, now: datetime, ended: str = "") -> str:
    """Return how a page that is a file came to be: when, by what, and when the last of its cells `ended` (ISO 8601)."""
    last = f" Its last cell ended {ended[:16].replace('T', ' ')} UTC." if ended else ""
    return f"Made {moment(1000 * now.timestamp())} by whitebench {__version__} ({command}).{last}"
