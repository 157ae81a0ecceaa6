"""From an error to the answer of a request: a status, a word, a sentence, and the field that it is about."""

from __future__ import annotations

import json
import os
import secrets
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightglue.errors import ImageError, InputError, LightGlueError, WeightsError
from lightglue.support.declared import RefusedOptionsError
from lightglue.support.memory import is_out_of_memory
from lightglue.support.printable import escaped

__all__ = ["Failure", "FailureError", "StoppedError", "failure_of", "image_fault", "unexpected", "without_path"]

LONGEST = 2_000  # characters of a sentence


@dataclass(frozen=True)
class Failure:
    """What went wrong."""

    status: int  # of HTTP
    code: str  # a word for programs
    message: str  # a sentence for people
    about: str | None = None  # the option or part of the request that it is about
    retry_after: int | None = None  # seconds
    more: Mapping[str, Any] = field(default_factory=dict)  # what programs may want to know besides

    def body(self) -> dict[str, Any]:
        """As JSON holds it."""
        found = {"code": self.code, "message": escaped(self.message)[:LONGEST], "field": self.about}
        return {"error": {**found, **self.more}}

    def encoded(self) -> bytes:
        """The body of the response."""
        return json.dumps(self.body()).encode()

    def headers(self) -> dict[str, str]:
        """What the response says besides."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class FailureError(Exception):
    """Ends a request with a failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def of(cls, status: int, code: str, message: str, about: str | None = None) -> FailureError:
        """With a new failure."""
        return cls(Failure(status, code, message, about))


class StoppedError(Exception):
    """Ends a job that is no longer wanted."""


def failure_of(error: BaseException) -> Failure | None:
    """What an answer says of an error; None for one that is ours, of which it gives nothing but a number."""
    if isinstance(error, FailureError):
        return error.failure
    if isinstance(error, RefusedOptionsError):
        return Failure(422, "option", str(error), error.options[0].key if error.options else None)
    if isinstance(error, WeightsError):
        return Failure(503, "weights", str(error), "features")
    if isinstance(error, ImageError):
        return Failure(422, "image", str(error))
    if isinstance(error, InputError):
        name, colon, _ = str(error).partition(": ")
        return Failure(422, "input", str(error), name if colon and name.isidentifier() else None)
    if isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
        return Failure(507, "memory", "There is not enough memory for this; ask for fewer keypoints or smaller images.")
    if isinstance(error, LightGlueError):
        return Failure(422, "input", str(error))
    return None


def image_fault(error: ImageError, name: str, about: str) -> FailureError:
    """What is wrong with an image that a user sent, by its name, and with options as requests have them."""
    text = (
        str(error).replace("The image given as bytes", name).replace("--stretch (stretch=True)", "the option stretch")
    )
    return FailureError.of(422, "image", text, about)


def unexpected(error: BaseException) -> Failure:
    """A fault of ours: the log has all of it under a number, and the request the number."""
    number = secrets.token_hex(4)
    print(f"error {number}:\n{''.join(traceback.format_exception(error))}", file=sys.stderr, flush=True)
    return Failure(500, "internal", f"Something went wrong here; the log has it as error {number}.")


def without_path(error: LightGlueError, path: str | os.PathLike[str], name: str) -> LightGlueError:
    """The same error with a name in place of a path of this machine, which is nobody's business elsewhere."""
    return type(error)(str(error).replace(os.fspath(path), name))
