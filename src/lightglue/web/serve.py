"""Listen, answer, and end cleanly."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

from lightglue.errors import InputError, LightGlueError
from lightglue.web.options import WebOptions

__all__ = ["Address", "address_of", "listen", "serve"]

BACKLOG = 128
CLOSE_S = 5  # that requests have to end when the service is shut down
IDLE_S = 30  # that a connection is kept open for another request
CONNECTIONS = 256  # at once


@dataclass(frozen=True)
class Address:
    """Where the page is."""

    url: str  # with the token, where there is one
    token: str | None


def serve(options: WebOptions | None = None, started: Callable[[Address], None] = lambda address: None) -> None:
    """Serve until interrupted. started: gets the address, once requests are accepted.

    Raises InputError; LightGlueError where the extra `web` is missing, or the port is taken.
    """
    options = _with_token(options or WebOptions())
    try:
        import uvicorn

        from lightglue.web.app import create_app
        from lightglue.web.heads import TimedHeads
        from lightglue.web.service import Service
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn", "python_multipart"):
            raise
        raise LightGlueError("The page needs the extra web; run `pip install 'lightglue[web]'`.") from error
    with listen(options) as listening:
        port = listening.getsockname()[1]
        address = address_of(options, port)
        app = create_app(options)
        config = uvicorn.Config(
            app,
            access_log=False,  # who sent what is nobody's business
            log_level="warning",
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=CLOSE_S,
            limit_concurrency=CONNECTIONS,
            http=TimedHeads,
            ws="none",
            proxy_headers=False,
            lifespan="on",
        )
        service: Service = app.state.service

        class Server(uvicorn.Server):
            """Ends jobs before it waits for requests: streams of events end with theirs."""

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                await service.close()
                await super().shutdown(sockets)

        started(address)
        Server(config).run(sockets=[listening])


def _with_token(options: WebOptions) -> WebOptions:
    from lightglue.web.guard import new_token

    return replace(options, token=new_token()) if options.token == "auto" else options


def listen(options: WebOptions) -> socket.socket:
    """A socket that listens where the options say. Raises InputError, LightGlueError."""
    host = options.host.strip("[]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host is {options.host!r}, which is no address of this machine: {error}.") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise LightGlueError(
            f"Port {options.port} of {options.host} cannot be used: {reason}; choose another."
        ) from error
    return listening


def address_of(options: WebOptions, port: int) -> Address:
    """Where a browser finds a service that listens at `port`."""
    if options.behind_proxy is not None:
        base = options.behind_proxy.rstrip("/")
    else:
        host = options.host.strip("[]")
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        base = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    query = f"?token={quote(options.token, safe='')}" if options.token else ""
    return Address(f"{base}/{query}", options.token)
