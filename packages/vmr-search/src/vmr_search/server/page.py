"""The page, its stylesheets and its script, and a plain page of the interface that needs no other server."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, Response

from vmr_common.page import stylesheet
from vmr_search.search import MOST_LETTERS, Search
from vmr_search.server.errors import Refused
from vmr_video.answers.page import environment

if TYPE_CHECKING:
    from vmr_search.server.videos import Library

TEMPLATES = "vmr_search.server"
"""Package that holds the templates."""
MOST_FOLDERS = 200
"""Folders that the page offers to choose from."""
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@functools.cache
def static_files() -> dict[str, str]:
    """The text of every file that the page loads, by its name."""
    folder = resources.files("vmr_search.server").joinpath("static")
    found = {
        file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.split(".")[-1] in _TYPES
    }
    return found | {"page.css": stylesheet()}


def router(search: Search, library: Library, examples: Sequence[str], app: FastAPI) -> APIRouter:
    """The addresses of the pages."""
    made = APIRouter(include_in_schema=False)

    def index() -> HTMLResponse:
        folders = library.folders
        text = (
            environment(TEMPLATES)
            .get_template("search.html")
            .render(
                videos=len(search.engine),
                watchable=len(library),
                folders=folders if len(folders) <= MOST_FOLDERS else [],
                examples=list(examples)[:8],
                most_letters=MOST_LETTERS,
            )
        )
        return HTMLResponse(text, headers={"Cache-Control": "no-cache"})

    async def static(name: str) -> Response:
        text = static_files().get(name)
        if text is None:
            raise Refused(404, "not_found", "there is no such file")
        kind = _TYPES[name.split(".")[-1]]
        return Response(text, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def docs() -> HTMLResponse:
        text = (
            environment(TEMPLATES)
            .get_template("api.html")
            .render(calls=calls(app.openapi()), about=app.description)
        )
        return HTMLResponse(text)

    made.add_api_route("/", index, methods=["GET", "HEAD"])
    made.add_api_route("/static/{name}", static, methods=["GET"])
    made.add_api_route("/docs", docs, methods=["GET"])
    return made


def calls(description: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of an OpenAPI description for a table: address, summary, and of each parameter name, kind, about."""
    found = []
    for place, methods in description["paths"].items():
        for what in methods.values():
            parameters = [
                {
                    "name": one["name"],
                    "needed": one.get("required", False),
                    "kind": _kind(one["schema"]),
                    "about": one.get("description", one["schema"].get("description", "")),
                }
                for one in what.get("parameters", [])
            ]
            found.append({"place": place, "summary": what["summary"], "parameters": parameters})
    return found


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"{_kind(schema['items'])}, may be repeated"
    edges = {"minimum": "from", "maximum": "to", "exclusiveMaximum": "below", "maxLength": "of at most"}
    words = [f"{word} {schema[key]:g}" for key, word in edges.items() if key in schema]
    words += ["letters"] if "maxLength" in schema else []
    default = schema.get("default")
    return " ".join([kind, *words]) + (f", {default} if not given" if default not in (None, [], "") else "")
