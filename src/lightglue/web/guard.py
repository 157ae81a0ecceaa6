"""What stands before everything else: who may ask, how much may be sent, how long that may take, what browsers may do.

A pure ASGI middleware: a body is counted as it comes in, before anything parses it, and whatever the application
makes of a body that was cut off, the answer says why it was.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from lightglue.web.failures import Failure, unexpected
from lightglue.web.options import WebOptions, is_loopback

__all__ = ["Guard", "GuardOptions", "cookie_name"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE = ("GET", "HEAD")
JSON_BYTES = 16_000_000  # of a request that is no upload: masks and keypoints may be in it
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"geolocation=(), microphone=(), camera=(self)"),
)


@dataclass(frozen=True)
class GuardOptions:
    """What the guard lets through."""

    hosts: frozenset[str]  # names in the header Host, without a port
    any_address: bool  # whether Host may be any address in numbers: nobody's name server gives these
    scheme: str = "http"
    prefix: str = ""  # of paths, behind a proxy
    token: str | None = None
    upload_bytes: int = 64_000_000  # of a file
    upload_files: int = 4  # of one request
    body_seconds: float = 120.0  # for a whole body
    idle_seconds: float = 15.0  # between two parts of one
    in_flight: int = 512_000_000  # bytes of all bodies that are being received

    @classmethod
    def of(cls, options: WebOptions) -> GuardOptions:
        """For a service with these options."""
        own: dict[str, Any] = {"token": options.token, "upload_bytes": options.limits.upload_bytes}
        if options.behind_proxy is not None:
            url = urlsplit(options.behind_proxy)
            hosts = frozenset({str(url.hostname).lower()})
            return cls(hosts, False, url.scheme, url.path.rstrip("/"), **own)
        names = {options.host.strip("[]").lower()}
        if is_loopback(options.host):
            names |= {"localhost", "127.0.0.1", "::1"}
        else:
            names |= {socket.gethostname().lower()}
        return cls(frozenset(names), not is_loopback(options.host), **own)


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Guard:
    """The middleware."""

    def __init__(self, app: App, options: GuardOptions) -> None:
        self._app, self._options = app, options
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: closed
        headers = _headers(scope)
        try:
            host = self._check_host(headers)
            self._check_origin(scope, headers, host)
            self._check_length(scope, headers)
            if (location := self._signed_in(scope)) is not None:
                await _redirect(send, location, self._cookie())
                return
            self._check_token(headers)
            if self._options.prefix and scope["path"] == self._options.prefix:
                await _redirect(send, f"{self._options.prefix}/")
                return
        except _RefusedError as refused:
            await _refuse(scope, send, refused.failure)
            return
        scope = dict(scope)
        if self._options.prefix:
            scope["root_path"] = self._options.prefix
            if scope["path"].startswith(self._options.prefix + "/"):  # a proxy that does not take it off
                scope["path"] = scope["path"][len(self._options.prefix) :]
        body = _Body(self, receive, self._limit(headers))
        answer = _Answer(send, body)
        try:
            await self._app(scope, body.receive, answer.send)
        except _RefusedError:
            pass
        except Exception as error:  # the framework would answer it outside of this, without these headers
            body.failure = body.failure or unexpected(error)
        finally:
            self._in_flight -= body.received
        if body.failure is not None and not answer.started:
            await _refuse(scope, send, body.failure)

    @property
    def options(self) -> GuardOptions:
        """What it lets through."""
        return self._options

    def add(self, count: int) -> bool:
        """Whether so many bytes more may be held."""
        self._in_flight += count
        return self._in_flight <= self._options.in_flight

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> str:
        values = headers.get(b"host", [])
        host = values[0].decode("latin-1").lower() if len(values) == 1 else ""
        name = _name_of(host)
        options = self._options
        if name not in options.hosts and not (options.any_address and _is_address(name)):
            raise _RefusedError(Failure(400, "host", "This service is not at that address."))
        return host

    def _check_origin(self, scope: Scope, headers: dict[bytes, list[bytes]], host: str) -> None:
        """Refuse what another site makes a browser send; it may link here, but not have work done, as by a picture."""
        foreign = Failure(403, "origin", "This request comes from another site.")
        safe = scope["method"] in SAFE
        for origin in headers.get(b"origin", []):
            if not safe and origin.decode("latin-1").lower() != f"{self._options.scheme}://{host}":
                raise _RefusedError(foreign)
        is_link = safe and headers.get(b"sec-fetch-dest") == [b"document"]
        for site in headers.get(b"sec-fetch-site", []):
            if site not in (b"same-origin", b"none") and not is_link:
                raise _RefusedError(foreign)

    def _check_token(self, headers: dict[bytes, list[bytes]]) -> None:
        token = self._options.token
        if token is None:
            return
        for value in headers.get(b"authorization", []):
            scheme, _, given = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and _equal(given.strip(), token):
                return
        expected = cookie_name(token)
        for line in headers.get(b"cookie", []):
            for each in line.decode("latin-1").split(";"):
                name, _, given = each.strip().partition("=")
                if name == expected and _equal(given, token):
                    return
        raise _RefusedError(Failure(401, "token", "This service wants a token: open the address that it printed."))

    def _signed_in(self, scope: Scope) -> str | None:
        """Where to go on, of a visit to the page with the right token in its address."""
        token = self._options.token
        if token is None or scope["method"] != "GET" or scope["path"] not in ("/", self._options.prefix + "/"):
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if len(given) != 1 or not _equal(given[0], token):
            return None
        return f"{self._options.prefix}/"

    def _cookie(self) -> str:
        token = self._options.token or ""
        secure = "; Secure" if self._options.scheme == "https" else ""
        path = quote(self._options.prefix or "", safe="/") + "/"
        return f"{cookie_name(token)}={token}; Path={path}; HttpOnly; SameSite=Strict{secure}"

    def _limit(self, headers: dict[bytes, list[bytes]]) -> int:
        is_form = headers.get(b"content-type", [b""])[0].lower().startswith(b"multipart/form-data")
        return self._options.upload_bytes * self._options.upload_files + 1_000_000 if is_form else JSON_BYTES

    def _check_length(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> None:
        lengths = headers.get(b"content-length", [])
        if not lengths:
            return
        if len(lengths) > 1 or re.fullmatch(rb"[0-9]{1,18}", lengths[0]) is None:
            raise _RefusedError(Failure(400, "length", "Content-Length is no number."))
        limit = self._limit(headers)
        if int(lengths[0]) > limit:
            raise _RefusedError(_too_large(limit))


class _Body:
    """The body of a request as it comes in."""

    def __init__(self, guard: Guard, receive: Receive, limit: int) -> None:
        self._guard, self._receive, self._limit = guard, receive, limit
        self._whole = False
        self._begin = time.monotonic()
        self.received = 0  # bytes
        self.failure: Failure | None = None

    async def receive(self) -> Message:
        """The next part. Raises _RefusedError where there is too much, or it takes too long."""
        if self.failure is not None:
            raise _RefusedError(self.failure)
        if self._whole:  # what comes now is that the client has left
            return await self._receive()
        options = self._guard.options
        left = options.body_seconds - (time.monotonic() - self._begin)
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, min(left, options.idle_seconds)))
        except asyncio.TimeoutError:
            raise self._refused(Failure(408, "slow", "The request came too slowly.")) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self.received += count
            self._whole = not message.get("more_body", False)
            if not self._guard.add(count):
                raise self._refused(Failure(429, "busy", "Too much is being sent at once; try again.", None, 5))
            if self.received > self._limit:
                raise self._refused(_too_large(self._limit))
        return message

    def _refused(self, failure: Failure) -> _RefusedError:
        self.failure = failure
        return _RefusedError(failure)


class _Answer:
    """What the application answers, which is replaced where the body was refused meanwhile."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send, self._body = send, body
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass it on, with the headers that every answer has."""
        if self._body.failure is not None and not self.started:
            return  # the application made something of a body that was cut off
        if message["type"] == "http.response.start":
            self.started = True
            own = list(message.get("headers", []))
            names = {name.lower() for name, _ in own}  # a page with a policy of its own, such as a report
            message = {**message, "headers": [*own, *(each for each in HEADERS if each[0] not in names)]}
        await self._send(message)


def _too_large(limit: int) -> Failure:
    return Failure(413, "too_large", f"The request is larger than {limit / 1e6:.4g} MB, which is the most.")


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _name_of(host: str) -> str:
    """The name in a header, without its port, which a tunnel may change; "" for a header that is none."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?", host)
    return "" if found is None else found[1] or found[2]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def cookie_name(token: str) -> str:
    """Of the cookie with a token: browsers send the cookies of a host to all its ports, where other services may be."""
    return f"lightglue_{sha256(token.encode()).hexdigest()[:8]}"


async def _redirect(send: Send, location: str, cookie: str | None = None) -> None:
    headers = [(b"location", location.encode()), (b"cache-control", b"no-store")]
    if cookie is not None:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": 303, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Send, failure: Failure) -> None:
    body = b"" if scope["method"] == "HEAD" else failure.encoded()
    own = [(name.lower().encode(), value.encode()) for name, value in failure.headers().items()]
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(failure.encoded())).encode())]
    close = [(b"connection", b"close")]  # whatever is still being sent is not read
    await send({"type": "http.response.start", "status": failure.status, "headers": [*headers, *own, *close, *HEADERS]})
    await send({"type": "http.response.body", "body": body})


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(24)
