"""What stands before the service: who may ask, how much may be sent, how long it may take, what browsers may do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from lightglue.errors import InputError
from lightglue.web.guard import Guard, GuardOptions, cookie_name
from lightglue.web.options import WebOptions, is_loopback
from support.loops import run_alone

TOKEN = "correct-horse-battery"
COOKIE = cookie_name(TOKEN)
LOCAL = GuardOptions.of(WebOptions())
REMOTE = GuardOptions.of(WebOptions(host="0.0.0.0", token=TOKEN))
FORM_ = {"content_type": "multipart/form-data; boundary=x"}


class Answer:
    """What came back."""

    def __init__(self, messages: list[Any]) -> None:
        start = next(each for each in messages if each["type"] == "http.response.start")
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(each.get("body", b"") for each in messages if each["type"] == "http.response.body")

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the body whole, and makes 400 of whatever goes wrong with it, as frameworks do."""
    if scope["path"] == "/fault":
        raise KeyError("/secret/path")
    received, more = b"", True
    status = 200
    try:
        while more:
            message = await receive()
            received, more = received + message.get("body", b""), message.get("more_body", False)
    except Exception:
        status = 400
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": f"{len(received)} {scope['path']}".encode()})


def ask(
    options: GuardOptions = LOCAL,
    method: str = "GET",
    path: str = "/",
    parts: tuple[bytes, ...] = (b"",),
    pause: float = 0,
    query: str = "",
    **headers: str,
) -> Answer:
    """One request. parts: of the body. pause: before each of them, s. headers: with _ for -."""
    named = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value],
    }
    sent: list[Any] = []

    async def source() -> AsyncIterator[Any]:
        for i, part in enumerate(parts):
            await asyncio.sleep(pause)
            yield {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}
        while True:
            yield {"type": "http.disconnect"}

    async def run() -> None:
        messages = source()

        async def receive() -> Any:
            return await messages.__anext__()

        async def send(message: Any) -> None:
            sent.append(message)

        await Guard(echo, options)(scope, receive, send)
        await messages.aclose()

    run_alone(run())
    return Answer(sent)


# -- who may ask --


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000", "localhost:9000", "127.0.0.1"]
)
def test_this_machine_by_its_names_is_answered_through_a_tunnel_too(host: str) -> None:
    assert ask(host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:8000", "127.0.0.1.evil.example:8000", "", "a b", "127.0.0.1:8000@x",
     "192.168.0.7:8000"],
)  # fmt: skip
def test_a_foreign_host_is_refused_so_that_no_name_server_can_lead_a_browser_here(host: str) -> None:
    answer = ask(host=host)
    assert (answer.status, answer.code) == (400, "host")


def test_two_hosts_are_refused() -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"host", b"evil.example")],
    }  # fmt: skip
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    run_alone(Guard(echo, LOCAL)(scope, None, keep))  # type: ignore[arg-type]
    assert Answer(sent).status == 400


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9000"},
     {"origin": "https://127.0.0.1:8000"}, {"origin": "file://"}, {"sec_fetch_site": "cross-site"},
     {"sec_fetch_site": "same-site"}],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "OPTIONS"])
def test_another_site_cannot_make_a_browser_send_anything(headers: dict[str, str], method: str) -> None:
    answer = ask(method=method, **headers)
    assert (answer.status, answer.code) == (403, "origin")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_another_site_may_link_here_and_have_nothing_done() -> None:
    foreign = {"sec_fetch_site": "cross-site", "path": "/api/v1/results/example/pdf"}
    assert ask(**foreign, sec_fetch_dest="image").code == "origin"
    assert ask(**foreign, sec_fetch_dest="iframe").code == "origin"
    assert ask(**foreign, sec_fetch_dest="document").status == 200
    assert ask(sec_fetch_site="same-origin", sec_fetch_dest="image").status == 200


@pytest.mark.parametrize("headers", [{}, {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"}])
def test_the_page_itself_and_programs_may_send(headers: dict[str, str]) -> None:
    assert ask(method="POST", **headers).status == 200


def test_any_host_but_loopback_wants_a_token() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(InputError, match="which others can reach; give a token too"):
            WebOptions(host=host)
    with pytest.raises(InputError, match="behind_proxy is https://a.example, which others can reach"):
        WebOptions(behind_proxy="https://a.example")
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1")))


@pytest.mark.parametrize("token", ["short", "with space in it all over", "", "ü" * 20])
def test_a_token_is_long_and_plain(token: str) -> None:
    with pytest.raises(InputError, match="token has"):
        WebOptions(token=token)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong-horse-battery"}, {"authorization": f"Basic {TOKEN}"}, {"cookie": "a=b"},
     {"cookie": f"{COOKIE}=x"}, {"authorization": f"Bearer {TOKEN}x"}, {"cookie": f"{COOKIE}=\xff"}],
)  # fmt: skip
def test_without_the_token_nothing_is_answered(headers: dict[str, str]) -> None:
    for path in ("/", "/api/v1/health", "/static/main.js"):
        answer = ask(REMOTE, path=path, **headers)
        assert (answer.status, answer.code) == (401, "token")
        assert TOKEN not in answer.body.decode()


@pytest.mark.parametrize(
    "headers",
    [{"authorization": f"Bearer {TOKEN}"}, {"authorization": f"bearer {TOKEN}"}, {"cookie": f"a=b; {COOKIE}={TOKEN}"}],
)
def test_the_token_is_taken_from_a_header_or_a_cookie(headers: dict[str, str]) -> None:
    assert ask(REMOTE, host="192.168.0.7:8000", **headers).status == 200


def test_the_address_with_the_token_gives_a_cookie_that_no_script_and_no_other_site_has() -> None:
    answer = ask(REMOTE, query=f"token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert answer.headers["set-cookie"] == f"{COOKIE}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert ask(REMOTE, query="token=wrong-horse-battery").status == 401
    assert ask(REMOTE, path="/api/v1/health", query=f"token={TOKEN}").status == 401, "not in the addresses of others"


def test_services_at_two_ports_of_a_host_keep_their_own_cookies() -> None:
    """Browsers send the cookies of a host to all of its ports."""
    other = GuardOptions.of(WebOptions(host="0.0.0.0", token="another-horse-battery"))
    jar: dict[str, str] = {}
    for options, token in ((REMOTE, TOKEN), (other, "another-horse-battery")):
        name, _, value = ask(options, query=f"token={token}").headers["set-cookie"].partition(";")[0].partition("=")
        jar[name] = value
    both = "; ".join(f"{name}={value}" for name, value in jar.items())
    assert [ask(options, cookie=both).status for options in (REMOTE, other)] == [200, 200]


def test_behind_a_proxy_its_name_and_prefix_count() -> None:
    options = GuardOptions.of(WebOptions(behind_proxy="https://a.example/match/", token=TOKEN))
    token = {"authorization": f"Bearer {TOKEN}", "host": "a.example"}
    assert ask(options, **token).status == 200
    assert ask(options, host="127.0.0.1:8000", authorization=token["authorization"]).status == 400
    assert ask(options, method="POST", origin="https://a.example", **token).status == 200
    assert ask(options, method="POST", origin="http://a.example", **token).status == 403
    assert ask(options, path="/match/api/v1/health", **token).body == b"0 /api/v1/health"
    assert ask(options, path="/api/v1/health", **token).body == b"0 /api/v1/health"
    assert ask(options, path="/match", **token).headers["location"] == "/match/"
    signed = ask(options, path="/match/", query=f"token={TOKEN}", host="a.example")
    assert signed.headers["location"] == "/match/"
    assert signed.headers["set-cookie"].endswith("Path=/match/; HttpOnly; SameSite=Strict; Secure")


@pytest.mark.parametrize(
    "url",
    ["a.example", "ftp://a.example", "https://", "https://u:p@a.example", "https://a.example?x=1", "https://a b",
     "https://a.example/m%C3%A4tch", "https://a.example/api", "https://a.example/static/match"],
)  # fmt: skip
def test_the_address_of_a_proxy_is_a_whole_one_with_a_path_of_its_own(url: str) -> None:
    with pytest.raises(InputError, match="behind_proxy is"):
        WebOptions(behind_proxy=url, token=TOKEN)


# -- how much and how long --

SMALL = replace(LOCAL, upload_bytes=1000, upload_files=0)  # and 1 MB for the rest of a form


@pytest.mark.parametrize("length", ["1000001", "99999999999999999"])
def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_is_read(length: str) -> None:
    answer = ask(SMALL, "POST", content_length=length, **FORM_)
    assert (answer.status, answer.code, answer.headers["connection"]) == (413, "too_large", "close")


def test_a_body_that_says_nothing_is_counted_and_refused_all_the_same() -> None:
    """The application makes 400 of a body that was cut off: the answer says why."""
    answer = ask(SMALL, "POST", parts=(b"x" * 500_000,) * 3, **FORM_)
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_body_within_the_limit_passes() -> None:
    assert ask(SMALL, "POST", parts=(b"x" * 500_000,) * 2, **FORM_).body == b"1000000 /"


def test_what_is_no_upload_has_a_lower_limit() -> None:
    assert ask(LOCAL, "POST", content_length="20000000", content_type="application/json").status == 413
    assert ask(LOCAL, "POST", content_length="20000000", **FORM_).status == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "1" * 30, "+5"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    assert ask(method="POST", content_length=length).code == "length"


def test_a_slow_upload_ends() -> None:
    slow = replace(LOCAL, idle_seconds=0.05)
    assert ask(slow, "POST", parts=(b"a", b"b"), pause=0.2, **FORM_).code == "slow"
    dripping = replace(LOCAL, body_seconds=0.3)
    answer = ask(dripping, "POST", parts=(b"a",) * 50, pause=0.02, **FORM_)
    assert (answer.status, answer.code) == (408, "slow")


def test_all_that_is_being_sent_has_a_limit_too() -> None:
    answer = ask(replace(LOCAL, in_flight=100), "POST", parts=(b"x" * 60, b"x" * 60), **FORM_)
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "busy", "5")
    guard = Guard(echo, replace(LOCAL, in_flight=100))
    assert guard.add(60)
    assert not guard.add(60)


def test_a_web_socket_is_not_answered() -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def send(message: Any) -> None:
        reached.append(message["type"])

    run_alone(Guard(app, LOCAL)({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert reached == []


# -- what browsers may do --


def test_a_fault_of_ours_is_answered_with_a_number_that_the_log_has_once(capfd: pytest.CaptureFixture[str]) -> None:
    answer = ask(path="/fault")
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body
    assert capfd.readouterr().err.count("Traceback") == 1


def test_every_answer_says_what_a_page_may_do() -> None:
    for answer in (ask(), ask(path="/fault"), ask(host="evil.example"), ask(method="POST", origin="null"), ask(REMOTE)):
        policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
        assert "unsafe" not in str(policy)
        assert "http" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]
