"""The server as a whole: pages, API and static files behind the guard."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp

from whitebench import __version__
from whitebench_leaderboards.server.api import make_api
from whitebench_leaderboards.server.asset import PLOTLY, STATIC
from whitebench_leaderboards.server.boards import make_boards
from whitebench_leaderboards.server.cells import make_cells
from whitebench_leaderboards.server.entrance import make_entrance
from whitebench_leaderboards.server.failure import tell_failures
from whitebench_leaderboards.server.guard import Guard
from whitebench_leaderboards.server.link import PREFIX
from whitebench_leaderboards.server.page import Press, Site, make_templates
from whitebench_leaderboards.server.reader import Reader
from whitebench_leaderboards.server.users import Users


def make_app(
    reader: Reader,
    *,
    token: str = "",
    users: Users | None = None,
    plugins: tuple[str, ...] = (),
    mlflow: ASGIApp | None = None,
) -> Guard:
    """Return the server as an ASGI application.

    Args:
        reader: what is shown.
        token: what must be known to read; without one, and without users, only this machine may.
        users: who may read.
        plugins: the names of local plugin files, for commands that are suggested.
        mlflow: MLflow's own pages, made safe, to stand under `/mlflow`.
    """
    site = Site(plugins=plugins, has_mlflow=mlflow is not None)
    templates = make_templates(site)
    app = make_pages(reader, site, templates)

    @app.get("/static/plotly.min.js", include_in_schema=False)
    def plotly() -> Response:
        return FileResponse(PLOTLY, media_type="text/javascript", headers={"Cache-Control": "private, max-age=86400"})

    tell_failures(app, templates)
    app.include_router(make_entrance(templates, token))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if mlflow is not None:
        app.mount("/mlflow", mlflow)
    return Guard(app, token=token, users=users)


def make_pages(reader: Reader, site: Site, templates: Environment) -> FastAPI:
    """Return the pages and the API alone; what goes wrong is raised."""
    app = FastAPI(
        title="whitebench",
        version=__version__,
        summary="Boards of benchmark suites, read only.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # they would load their scripts from elsewhere
        redoc_url=None,
    )
    press = Press(templates)
    app.include_router(make_api(reader))
    app.include_router(make_boards(reader, press, site))
    app.include_router(make_cells(reader, press, site))
    return app
