"""Whether a Ray cluster answers at an address: Ray itself waits for minutes for one that does not, deaf to signals."""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

from lightglue.errors import InputError, LightGlueError

__all__ = ["check_address"]

_PATIENCE_S = 10.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # RFC 9113, 3.4: and empty settings
_SETTINGS = 4  # the type of the frame that a server answers with first


def check_address(address: str) -> None:
    """Raises InputError for what is no address, LightGlueError where no Ray cluster answers.

    `auto` and `local` are none: of these Ray knows at once.
    """
    if address in ("auto", "local"):
        return
    host, port = _host_and_port(address)
    try:
        with socket.create_connection((host, port), _PATIENCE_S) as connection:
            connection.settimeout(_PATIENCE_S)
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < 4 and (more := connection.recv(9 - len(answer))):
                answer += more
    except (OSError, UnicodeError) as error:
        raise _none_at(address, str(getattr(error, "strerror", None) or error)) from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise _none_at(address, "something else answers")


def _host_and_port(address: str) -> tuple[str, int]:
    text = address if "://" in address else f"ray-gcs://{address}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if address.startswith("ray://") and host and port is None:
        port = 10001  # Ray's own for its clients
    if not host or not port or not re.fullmatch("ray(-gcs)?", parts.scheme):
        raise InputError(f"{address!r} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT or auto.")
    return host, port


def _none_at(address: str, reason: str) -> LightGlueError:
    return LightGlueError(
        f"There is no Ray cluster at {address} ({reason}); `ray status` on its head tells the address, whose port is "
        "6379 unless it was chosen."
    )
