"""Dash in an existing Quart app: what that app has done to all of its requests and websockets, it does to Dash's."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
import websockets

from ..server import Reply, Server, call, closed, request_message, result, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "/dash/_dash-ws-callback"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("existing"), app="tests.apps.embedded:server") as running:
        yield running


def connect(site: Server, cookie: str = "", path: str = SOCKET, **headers: str) -> websockets.connect:
    sent = {"Cookie": cookie, **headers}
    return websockets.connect(
        f"ws://127.0.0.1:{site.port}{path}", origin=site.origin, additional_headers=sent, max_size=None
    )


def seen(site: Server, path: str) -> list[str]:
    return [name for name, where in site.get("/seen").json if where == path]


def test_its_views_blueprints_and_error_handlers_go_on_as_before(site: Server) -> None:
    cookie = site.login("alice")
    assert site.get("/shop/item", cookie).json == {"item": "alice"}
    none = site.get("/shop/none")
    assert (none.status, none.json) == (409, {"existing": "out of stock"})
    lost = site.get("/nowhere", cookie)
    assert (lost.status, lost.json) == (404, {"existing": "not found"})
    assert site.request("POST", "/shop/item", cookie=cookie).status == 405


def test_its_functions_run_around_dashs_requests(site: Server) -> None:
    cookie = site.login("alice")
    page = site.get("/dash/", cookie)
    assert page.status == 200
    assert page.headers["X-Existing"] == "yes"
    assert "before_request" in seen(site, "/dash/")
    refused = site.request("GET", "/dash/_dash-layout", cookie=cookie, headers={"X-Forbidden": "yes"})
    assert refused.status == 403
    assert over_http(site, "out.children", 1, cookie).json["response"]["out"]["children"]["tenant"] == "acme"


def over_http(site: Server, output: str, value: int = 1, cookie: str = "") -> Reply:
    body = json.loads(request_message(output, value))["payload"]
    return site.request("POST", "/dash/_dash-update-component", cookie=cookie, body=body, headers={"X-Tenant": "acme"})


@pytest.mark.parametrize(
    ("value", "status", "answer"), [(1, 409, "out of stock"), (3, 500, "failed")], ids=["of its own", "any"]
)
def test_its_error_handlers_are_for_callbacks_over_http_as_well(
    site: Server, value: int, status: int, answer: str
) -> None:
    reply = over_http(site, "out.title", value, site.login("alice"))
    assert (reply.status, reply.json) == (status, {"existing": answer})


def test_its_error_handlers_do_not_swallow_what_the_renderer_waits_for(site: Server) -> None:
    assert over_http(site, "out.title", 2, site.login("alice")).status == 204
    assert site.get("/shop/item").location == "/login"
    refused = over_http(site, "who.children")
    assert (refused.status, refused.headers["Dash-Session"]) == (401, "required")


async def test_over_the_websocket_an_exception_is_its_callbacks_alone(site: Server) -> None:
    async with connect(site, site.login("alice")) as socket:
        for value in (1, 3):
            failed = await call(socket, "out.title", value)
            assert failed["status"] == "error"
            assert "existing" not in json.dumps(failed)
        assert (await call(socket, "out.title", 2))["status"] == "prevent_update"
        assert result(await call(socket, "who.children", 7)) == "alice 7 over a websocket in HTTP/1.1"


async def test_its_functions_run_around_dashs_websocket(site: Server) -> None:
    cookie = site.login("alice")
    before = seen(site, SOCKET)
    async with connect(site, cookie, **{"X-Tenant": "acme"}) as socket:
        found = result(await call(socket, "out.children"))
        assert found["tenant"] == "acme", "in a thread, too"
        assert found["path"].startswith("/dash/_dash-update-component")
        assert result(await call(socket, "who.children", 7)) == "alice 7 over a websocket in HTTP/1.1"
    while "teardown_websocket" not in seen(site, SOCKET)[len(before) :]:
        await asyncio.sleep(0.01)
    assert seen(site, SOCKET)[len(before) :] == ["before_websocket", "teardown_websocket"], "and the shop's do not"


@pytest.mark.parametrize(("header", "status"), [("X-Forbidden", 403), ("X-Empty", 409), ("X-Elsewhere", 410)])
async def test_a_websocket_that_its_function_refuses_is_refused_with_that_status(
    site: Server, header: str, status: int
) -> None:
    cookie = site.login("alice")
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(site, cookie, **{header: "yes"})
    assert refused.value.response.status_code == status


async def test_its_own_websockets_go_on_beside_dashs(site: Server) -> None:
    cookie = site.login("alice")
    async with connect(site, cookie) as dash, connect(site, cookie, "/shop/chat") as chat:
        await chat.send("hello")
        assert await chat.recv() == "the shop says hello"
        await asyncio.to_thread(site.get, "/logout", cookie)
        assert (await closed(dash))[0] == 4001
        await chat.send("still here")
        assert await chat.recv() == "the shop says still here", "which is the app's own business"
    assert {"before_websocket", "shop"} <= set(seen(site, "/shop/chat"))


@pytest.mark.parametrize(("path", "status"), [("/dash/", 400), ("/dash/other", 400), ("/nowhere", 404)])
async def test_a_path_that_is_no_websocket_is_answered_by_the_app_as_ever(site: Server, path: str, status: int) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(site, path=path)
    assert refused.value.response.status_code == status
