"""Errors as every answer of the server gives them: ``{"error": {"code", "message", "field"}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from vmr_common.errors import UserError, one_line, shortened

logger = logging.getLogger(__name__)
_CODES = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    414: "too_long",
    416: "range_not_satisfiable",
    422: "invalid",
    499: "gone",
    500: "internal",
    501: "not_available",
    503: "busy",
}


class Problem(BaseModel):
    """The fault of a request."""

    code: str = Field(description="a word for programs")
    message: str = Field(description="a sentence for people")
    field: str | None = Field(None, description="the parameter that is wrong")


class Failure(BaseModel):
    """The body of every answer that is an error."""

    error: Problem


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An answer that is an error.

    Args:
        status: Of HTTP.
        code: A word for programs.
        message: A sentence for people.
        field: The parameter that is wrong.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field
        self.headers = headers


def failure(
    status: int,
    message: str,
    code: str | None = None,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as an answer."""
    problem = Problem(code=code or _CODES.get(status, "error"), message=message, field=field)
    body = Failure(error=problem).model_dump()
    return JSONResponse(body, status, headers=dict(headers or {}))


def install(app: FastAPI, private: Sequence[Path]) -> None:
    """Makes every error of an application one of this form.

    Args:
        app: The application.
        private: Folders whose places on the disk no message tells.
    """
    # a file is opened behind all links, and its message names that place
    places = {str(one) for path in private for one in (path, path.absolute(), path.resolve())}
    folders = sorted(places, key=len, reverse=True)

    def told(error: BaseException) -> str:
        text = one_line(str(error))
        for folder in folders:
            text = text.replace(f"{folder}/", "").replace(folder, "the folder")
        return shortened(text, 1000)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return failure(error.status, error.message, error.code, error.field, error.headers)

    async def wrong(request: Request, error: Exception) -> JSONResponse:
        return failure(422, told(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return failure(error.status_code, told(Exception(error.detail)), headers=error.headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first: dict[str, Any] = dict(error.errors()[0])
        place = [str(part) for part in first["loc"] if part not in ("query", "path")]
        field = place[0] if place else None
        message = shortened(one_line(f"{field}: {first['msg']}" if field else str(first["msg"])))
        return failure(422, message, field=None if field is None else shortened(field, 60))

    async def fault(request: Request, error: Exception) -> JSONResponse:
        # the traceback is in the server's log
        return failure(500, "a fault of the server; its log says more")

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(UserError, wrong)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, fault)
