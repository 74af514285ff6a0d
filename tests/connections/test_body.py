"""Callbacks over HTTP with large bodies: who may send how much, and that nothing of one is lost or read too early."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from quart import Request
from quart.wrappers.request import Body
from werkzeug.exceptions import RequestEntityTooLarge

from dash_quart_ws.connections.body import MOST_OBJECTS, CallbackBody
from tests.server import Server, request_message, serving
from tests.sessions.site import ECHO, Site, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB = 1024 * 1024
CALLBACKS = "/_dash-update-component"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("uploads"), app="tests.apps.uploads:server") as server:
        yield server


def upload(size: int, output: str = "size.children") -> bytes:
    """A callback's body with a value of so many bytes."""
    return json.dumps(json.loads(request_message(output, "x" * size))["payload"]).encode()


def value_of(reply: Any) -> Any:
    """The one property that a callback has set over HTTP."""
    assert reply.status == 200, reply
    ((value,),) = (props.values() for props in reply.json["response"].values())
    return value


def post(server: Server, path: str, body: bytes, cookie: str | None = None, **headers: str) -> Any:
    return server.request(
        "POST", path, cookie=cookie, body=body, headers={"Content-Type": "application/json", **headers}
    )


def status_of(server: Server, path: str, size: int, cookie: str = "", *, chunked: bool = False) -> int:
    """The status of a POST of which the client sends as much as the server takes, until there is an answer."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {cookie}\r\n{framing}\r\n"
    piece = b"x" * 65536
    sent = b"10000\r\n" + piece + b"\r\n" if chunked else piece
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        client.settimeout(0.001)
        answer = b""
        for _ in range(size // len(piece)):
            try:
                client.settimeout(20)
                client.sendall(sent)
                client.settimeout(0.001)
                answer += client.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            break
        client.settimeout(20)
        while b"\r\n" not in answer:
            received = client.recv(65536)
            assert received, "closed without an answer"
            answer += received
    return int(answer.split()[1])


# ------------------------------------------------------------------------------------------------ on real servers


@pytest.mark.parametrize("name", ["hypercorn", "uvicorn", "granian"])
def test_an_upload_of_30_mb_works_for_who_is_signed_in(tmp_path: Path, name: str) -> None:
    with serving(tmp_path, server=name, app="tests.apps.uploads:server") as server:
        contents = 40 * MB  # 30 MB in base64, as dcc.Upload sends it
        assert value_of(post(server, CALLBACKS, upload(contents), server.login("alice"))) == contents
        assert value_of(post(server, CALLBACKS, upload(7), server.login("alice"))) == 7
        assert status_of(server, CALLBACKS, 20 * MB) == 413
    assert "Traceback" not in server.log


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_nobody_sends_more_than_the_server_takes_from_anybody(uploads: Server, chunked: bool) -> None:
    ended = uploads.login("mallory")
    uploads.get("/logout", ended)
    for cookie in ("", ended, "QUART_AUTH=forged"):
        assert status_of(uploads, CALLBACKS, 20 * MB, cookie, chunked=chunked) == 413


def test_nobodys_public_callbacks_take_what_they_took(uploads: Server) -> None:
    contents = 15 * MB
    assert value_of(post(uploads, CALLBACKS, upload(contents, "public.children"))) == contents
    assert post(uploads, CALLBACKS, upload(contents)).status == 401


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
def test_a_user_sends_no_more_than_upload_bytes(tmp_path: Path, chunked: bool) -> None:
    with serving(tmp_path, app="tests.apps.uploads:server", env={"UPLOAD_BYTES": str(24 * MB)}) as server:
        cookie = server.login("alice")
        assert status_of(server, CALLBACKS, 32 * MB, cookie, chunked=chunked) == 413
        assert value_of(post(server, CALLBACKS, upload(20 * MB), cookie)) == 20 * MB


def test_every_other_route_takes_what_it_took(uploads: Server) -> None:
    cookie = uploads.login("alice")
    assert post(uploads, "/own", b"x" * 15 * MB, cookie).json == {"size": 15 * MB}
    assert status_of(uploads, "/own", 20 * MB, cookie) == 413


@pytest.mark.parametrize("own", [64 * MB, 0], ids=["64 MB", "no limit"])
def test_a_higher_limit_of_the_servers_own_holds(tmp_path: Path, own: int) -> None:
    env = {"UPLOAD_BYTES": str(MB), "MAX_CONTENT_LENGTH": str(own)}
    with serving(tmp_path, app="tests.apps.uploads:server", env=env) as server:
        assert value_of(post(server, CALLBACKS, upload(40 * MB), server.login("alice"))) == 40 * MB
        assert value_of(post(server, CALLBACKS, upload(40 * MB, "public.children"))) == 40 * MB
        if own:
            assert status_of(server, CALLBACKS, 80 * MB, server.login("alice")) == 413


def test_a_lower_limit_of_the_servers_own_is_for_all_others(tmp_path: Path) -> None:
    with serving(tmp_path, app="tests.apps.uploads:server", env={"MAX_CONTENT_LENGTH": str(MB)}) as server:
        assert value_of(post(server, CALLBACKS, upload(2 * MB), server.login("alice"))) == 2 * MB
        assert status_of(server, CALLBACKS, 2 * MB) == 413


def test_an_app_that_reads_the_body_first_has_it_and_keeps_its_limit(uploads: Server) -> None:
    cookie = uploads.login("alice")
    reply = post(uploads, CALLBACKS, upload(3 * MB), cookie, **{"X-Read-First": "yes"})
    assert value_of(reply) == 3 * MB
    cookie += "\r\nX-Read-First: yes"
    assert status_of(uploads, CALLBACKS, 20 * MB, cookie) == 413


# ------------------------------------------------------------------------------------------------- in one process


def scope_of(site: Site, path: str, cookie: str, length: int) -> dict[str, Any]:
    headers = {"host": "localhost", "cookie": cookie, "content-type": "application/json", "content-length": str(length)}
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "extensions": {}, "state": {},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 80),
    }  # fmt: skip


async def test_nothing_is_taken_from_the_server_before_it_is_known_whose_it_is_and_then_nothing_is_lost() -> None:
    site = Site()
    body = json.dumps({**ECHO, "inputs": [{**ECHO["inputs"][0], "value": "x" * 20 * MB}]}).encode()
    pieces = [body[start : start + MB] for start in range(0, len(body), MB)]
    taken: list[int] = []
    sent: list[dict[str, Any]] = []
    answered = asyncio.Event()

    @site.server.before_request
    async def slowly() -> None:
        if site.entered.is_set():  # the second request: the first was the login
            await site.go_on.wait()
        site.entered.set()

    async def receive() -> dict[str, Any]:
        number = len(taken)
        taken.append(number)
        if number >= len(pieces):
            await answered.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces[number], "more_body": number + 1 < len(pieces)}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)
        if event["type"] == "http.response.body" and not event.get("more_body"):
            answered.set()

    async with site:
        cookie = await site.login("alice")
        answering = asyncio.create_task(site.server(scope_of(site, CALLBACKS, cookie, len(body)), receive, send))  # type: ignore[arg-type]
        for _ in range(100):
            await asyncio.sleep(0)
        assert taken == []
        site.go_on.set()
        await until(answering.done)
    assert sent[0]["status"] == 200
    answer = json.loads(b"".join(event.get("body", b"") for event in sent))
    assert len(answer["response"]["echo"]["children"]) == len("alice ") + 20 * MB


async def test_what_comes_after_the_answer_is_kept_by_nobody() -> None:
    body = CallbackBody(None, None, None)
    body.append(b"x" * MB)
    body.drop()
    await body.put(b"x" * MB)
    assert await body == b""


async def test_a_body_takes_no_more_than_its_limit_whether_anybody_reads_it_or_not() -> None:
    body = CallbackBody(None, 2 * MB, None)
    for _ in range(100):
        await body.put(b"x" * MB)
    with pytest.raises(RequestEntityTooLarge):
        await body
    with pytest.raises(RequestEntityTooLarge):
        await anext(body)
    assert len(body._come_so_far) <= 3 * MB


async def test_an_apps_own_class_of_bodies_is_left_alone() -> None:
    class OwnBody(Body):
        pass

    class OwnRequest(Request):
        body_class = OwnBody

    site = Site()
    site.server.request_class = OwnRequest
    async with site:
        cookie = await site.login("alice")
        assert (await site.request("POST", CALLBACKS, cookie, json=ECHO)).status == 200
        large = {**ECHO, "inputs": [{**ECHO["inputs"][0], "value": "x" * 20 * MB}]}
        assert (await site.request("POST", CALLBACKS, cookie, json=large)).status == 413


def test_a_body_of_so_many_objects_that_reading_it_would_delay_everybody_is_refused(uploads: Server) -> None:
    def status(objects: int) -> int:
        value = json.dumps([{}] * objects).encode()
        body = upload(0).replace(b'""', value)
        assert value in body
        return int(post(uploads, CALLBACKS, body, cookie).status)

    cookie = uploads.login("alice")
    assert status(MOST_OBJECTS) == 413
    assert status(MOST_OBJECTS // 2) == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_request() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        events = iter([
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ])  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return next(events)

        async def send(event: Any) -> None:
            sent.append(event)

        async with asyncio.timeout(10):
            await site.server(scope_of(site, CALLBACKS, cookie, 100), receive, send)  # type: ignore[arg-type]
        assert sent == []
