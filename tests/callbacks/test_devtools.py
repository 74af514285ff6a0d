"""What Dash's dev tools are told of a callback over the websocket, in debug mode only: what they are told of it over HTTP.

What somebody sees of it in a browser is in `tests.parity.rows.developed`.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from dash import Dash, Input, Output, ctx, html
from dash.exceptions import PreventUpdate
from quart import Quart, abort

from dash_quart_ws import QuartBackend
from tests.sessions.site import Site

from .test_cut import answers, body, request

if TYPE_CHECKING:
    from tests.sessions.site import Reply

FAILED = r"Callback failed \(error [0-9a-f]{8}\)"


def site_of(function: Any, **tools: Any) -> Site:
    """One with a callback for `out`."""
    site = Site()
    site.app.callback(Output("out", "children"), Input("go", "n_clicks"))(function)
    if tools:
        site.app.enable_dev_tools(dev_tools_hot_reload=False, **tools)
    return site


async def both_ways(site: Site) -> tuple[dict[str, Any], Reply]:
    """The payload of its answer over the websocket, and the response over HTTP."""
    async with site:
        cookie = await site.login("alice")
        async with site.websocket(cookie) as socket:
            await socket.send(request("out"))
            payload = (await answers(socket, 1))["1"]
        return payload, await site.request("POST", "/_dash-update-component", cookie, json=body("out"))


async def fails(_clicks: int) -> None:
    raise ZeroDivisionError("what went wrong")


def fails_in_a_thread(_clicks: int) -> None:
    raise ZeroDivisionError("what went wrong")


async def aborts(_clicks: int) -> None:
    abort(403)


@pytest.mark.parametrize("callback", [fails, fails_in_a_thread])
async def test_a_failed_callback_is_shown_with_the_pruned_page_that_it_has_over_http(callback: Any) -> None:
    payload, over_http = await both_ways(site_of(callback, debug=True))
    assert re.fullmatch(FAILED, payload["message"])
    page = payload["devtools"]["page"]
    assert page == over_http.body
    assert "what went wrong" in page
    assert f"in {callback.__name__}" in page
    assert "_invoke_callback" not in page


@pytest.mark.parametrize("callback", [fails, fails_in_a_thread])
async def test_the_page_is_not_pruned_when_that_is_not_wanted(callback: Any) -> None:
    payload, _ = await both_ways(site_of(callback, debug=True, dev_tools_prune_errors=False))
    assert f"in {callback.__name__}" in payload["devtools"]["page"]
    assert "_invoke_callback" in payload["devtools"]["page"]


async def test_an_answer_of_its_own_is_shown_with_the_page_that_it_has_over_http() -> None:
    payload, over_http = await both_ways(site_of(aborts, debug=True))
    assert payload["message"] == "403 Forbidden"
    assert payload["devtools"]["page"] == over_http.body


async def test_a_callback_that_there_is_not_has_no_page() -> None:
    async with Site(debug=True) as site, site.websocket(await site.login("alice")) as socket:
        await socket.send(request("nowhere"))
        assert (await answers(socket, 1))["1"] == {
            "status": "error",
            "message": "There is no callback for 'nowhere.children'",
        }


async def test_its_time_its_bytes_and_what_it_has_measured_are_those_of_a_response_over_http() -> None:
    async def measures(_clicks: int) -> str:
        await asyncio.sleep(0.03)
        ctx.record_timing("database", 0.25, "a description")
        return "ü" * 100

    payload, over_http = await both_ways(site_of(measures, debug=True))
    assert payload["status"] == "ok"
    usage = payload["devtools"]["usage"]
    assert usage.pop("__dash_server") >= 30
    assert usage == {"database": 250, "__dash_download": int(over_http.headers["Content-Length"])}
    measured = over_http.headers.getlist("Server-Timing")
    assert [entry.split(";")[0] for entry in measured] == ["__dash_server", "database"]
    assert measured[1].endswith(";dur=250")


async def test_one_that_changes_nothing_is_measured_too() -> None:
    async def unchanged(_clicks: int) -> None:
        ctx.record_timing("database", 0.25)
        raise PreventUpdate

    payload, _ = await both_ways(site_of(unchanged, debug=True))
    assert payload["devtools"]["usage"].keys() == {"__dash_server", "database"}
    assert payload["status"] == "prevent_update"


@pytest.mark.parametrize("tools", [{}, {"debug": False, "dev_tools_ui": True}, {"debug": True, "dev_tools_ui": False}])
async def test_nothing_of_it_is_sent_without_debug_mode_or_without_the_dev_tools(tools: dict[str, bool]) -> None:
    payload, _ = await both_ways(site_of(fails, **tools))
    assert payload.keys() == {"status", "message"}
    assert re.fullmatch(FAILED, payload["message"])

    async def works(_clicks: int) -> str:
        ctx.record_timing("database", 0.25)
        return "done"

    payload, _ = await both_ways(site_of(works, **tools))
    assert payload == {"status": "ok", "data": payload["data"]}


async def test_two_apps_on_one_server_measure_each_request_once() -> None:
    server = Quart("both")
    for name in ("one", "two"):
        backend = QuartBackend(server=server, broker="memory:", login_required=False)
        app = Dash(name, backend=backend, url_base_pathname=f"/{name}/", assets_folder="none")
        app.layout = html.Div()
        app.enable_dev_tools(debug=True, dev_tools_hot_reload=False)
    response = await server.test_client().get("/two/_dash-layout")
    (measured,) = response.headers.getlist("Server-Timing")
    assert 0 <= float(measured.removeprefix("__dash_server;dur=")) < 60_000
