"""What a callback says about how it is run, wherever it says so; and what goes over the websocket, or does not."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import pytest
from dash import Dash, Input, Output, html
from quart import Quart

from dash_quart_ws import ConfigurationError, QuartBackend, callback_options, protected_callback, public_callback
from dash_quart_ws.callbacks import options
from dash_quart_ws.callbacks.options import CallbackOptions, options_of
from tests.sessions.site import Site

from .test_cut import answers, body, request, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

GO = Input("go", "n_clicks")
GIVEN = CallbackOptions(5, "cancel", "http")


def given(function: Any) -> Any:
    return callback_options(timeout=5, superseded="cancel", transport="http")(function)


def an_app(*, websocket_callbacks: bool = False, **given: Any) -> Dash:
    backend = QuartBackend(broker="memory:", login_required=False, **given)
    app = Dash(__name__, backend=backend, assets_folder="none", websocket_callbacks=websocket_callbacks)
    app.layout = html.Div()
    return app


@pytest.mark.parametrize("place", ["below", "above"])
@pytest.mark.parametrize("kind", ["callback", "public", "protected"])
def test_the_options_are_found_below_the_registration_and_above_it(kind: str, place: str) -> None:
    app = an_app()
    register: Callable[..., Any] = {
        "callback": app.callback,
        "public": functools.partial(public_callback, app=app),
        "protected": functools.partial(protected_callback, app=app),
    }[kind](Output("out", "children"), GO)

    async def function(value: Any) -> Any:
        return value

    if place == "below":
        register(given(function))
    else:
        given(register(function))
    assert options_of(app.callback_map["out.children"]["callback"]) == GIVEN


def test_a_callback_that_says_nothing_has_the_options_of_all() -> None:
    app = an_app()
    app.callback(Output("out", "children"), GO)(lambda value: value)
    assert options_of(app.callback_map["out.children"]["callback"]) == CallbackOptions()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"timeout": 0}, ValueError, "a number of seconds above 0"),
        ({"timeout": float("inf")}, ValueError, "a number of seconds above 0"),
        ({"timeout": True}, TypeError, "a number of seconds, 'default' or None"),
        ({"timeout": "5"}, TypeError, "a number of seconds, 'default' or None"),
        ({"superseded": "stop"}, ValueError, "one of 'finish', 'cancel'"),
        ({"transport": "websockets"}, ValueError, "one of 'any', 'http', 'websocket'"),
    ],
)
def test_an_argument_that_means_nothing_is_an_error(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        callback_options(**arguments)


# ----------------------------------------------------------------------------------------------------- transport


async def told_of(app: Dash) -> tuple[bool, dict[str, Any]]:
    """What the renderer is told: whether everything goes over the websocket, and what each callback says itself."""
    server: Any = app.server
    assert isinstance(server, Quart)
    client = server.test_client()
    page = await (await client.get("/")).get_data(as_text=True)
    config = json.loads(page.partition('id="_dash-config"')[2].partition(">")[2].partition("</script>")[0])
    listed = await (await client.get("/_dash-dependencies")).get_json()
    own = [one for one in listed if not one["persistent"]]  # but for what a lazy renderer opens its websocket for
    return config["websocket"]["enabled"], {one["output"]: one["websocket"] for one in own}


def register(app: Dash, id: str, **told: Any) -> None:
    arguments = {name: told.pop(name) for name in ("websocket", "persistent") if name in told}

    async def function(*_: Any) -> str:
        return id

    decorated = callback_options(**told)(function)
    app.callback(*([] if arguments.get("persistent") else [Output(id, "children"), GO]), **arguments)(decorated)


async def test_a_callback_that_stays_on_http_is_the_only_one_that_does() -> None:
    app = an_app(websocket_callbacks=True)
    register(app, "stays", transport="http")
    register(app, "goes")
    assert await told_of(app) == (False, {"stays.children": False, "goes.children": True})


async def test_without_one_the_renderer_is_told_what_dash_tells_it() -> None:
    app = an_app(websocket_callbacks=True)
    register(app, "goes")
    assert await told_of(app) == (True, {"goes.children": False})


async def test_a_callback_that_has_to_be_on_the_websocket_is_the_only_one_that_is() -> None:
    app = an_app()
    register(app, "goes", transport="websocket")
    register(app, "stays")
    assert await told_of(app) == (False, {"stays.children": False, "goes.children": True})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transport": "http", "websocket": True}, "transport='http' and websocket=True: leave one out"),
        ({"transport": "http", "persistent": True}, "transport='http' and persistent=True: leave one out"),
    ],
)
async def test_a_callback_that_says_two_things_is_an_error_that_names_it(
    arguments: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = an_app(websocket_callbacks=True)
    register(app, "out", **arguments)
    server: Any = app.server
    assert (await server.test_client().get("/")).status_code == 500
    error = caplog.records[-1].exc_info
    assert error is not None
    assert isinstance(error[1], ConfigurationError)
    assert message in str(error[1])


# --------------------------------------------------------------------------------------- when a page opens its websocket

NO_SOCKET = "no websocket"


async def opens(app: Dash) -> str | tuple[bool, list[bool]]:
    """What the renderer decides by: whether it opens at once, and what each callback says; or that there is none."""
    server: Any = app.server
    client = server.test_client()
    page = await (await client.get("/")).get_data(as_text=True)
    config = json.loads(page.partition('id="_dash-config"')[2].partition(">")[2].partition("</script>")[0])
    listed = await (await client.get("/_dash-dependencies")).get_json()
    if "websocket" not in config:
        return NO_SOCKET
    return config["websocket"]["enabled"], [one["websocket"] for one in listed]


@pytest.mark.parametrize(
    ("is_lazy", "everything", "connect", "told", "expected"),
    [
        # Dash up to 4.4 opens one on each page that is told of it.
        (False, True, "always", {}, (True, [False])),
        (False, False, "always", {}, (False, [False])),
        (False, False, "when_needed", {}, NO_SOCKET),
        (False, False, "when_needed", {"websocket": True}, (False, [True])),
        (False, False, "when_needed", {"transport": "websocket"}, (False, [True])),
        (False, True, "when_needed", {}, (True, [False])),
        (False, True, "when_needed", {"transport": "http"}, NO_SOCKET),
        # From 4.5 on only where everything goes over it, and else for the first callback that does: here an extra one.
        (True, True, "always", {}, (True, [False])),
        (True, False, "always", {}, (False, [False, True])),
        (True, True, "always", {"transport": "http"}, (False, [False, True])),
        (True, False, "when_needed", {}, NO_SOCKET),
        (True, False, "when_needed", {"websocket": True}, (False, [True])),
        (True, True, "when_needed", {}, (False, [True])),
    ],
)
async def test_a_page_opens_its_websocket_when_the_app_says(
    is_lazy: bool, everything: bool, connect: str, told: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "opens_lazily", lambda: is_lazy)
    app = an_app(connect=connect, websocket_callbacks=everything)
    register(app, "out", **told)
    assert await opens(app) == expected


async def test_an_app_without_any_callback_needs_no_websocket() -> None:
    assert await opens(an_app(connect="when_needed", websocket_callbacks=True)) == NO_SOCKET
    app = an_app(connect="when_needed", websocket_callbacks=True)
    app.clientside_callback("() => 1", Output("out", "children"), GO)
    assert await opens(app) == NO_SOCKET


async def test_what_a_lazy_renderer_opens_its_websocket_for_does_nothing_and_is_not_shown_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "opens_lazily", lambda: True)
    site = Site(dash={"websocket_callbacks": False})
    site.backend.public_routes.add(["/"])
    async with site:
        assert (await site.get("/_dash-dependencies")).json == []
        cookie = await site.login("alice")
        (opener,) = [one for one in (await site.get("/_dash-dependencies", cookie)).json if one["persistent"]]
        assert opener["hidden"]
        payload = {"output": opener["output"], "inputs": [], "changedPropIds": [], "state": []}
        async with site.websocket(cookie) as socket:
            await socket.send(request("", payload=payload))
            assert await answers(socket, 1) == {"1": {"status": "prevent_update"}}


@pytest.fixture
def site() -> Site:
    site = Site()
    for id, transport in (("stays", "http"), ("goes", "websocket"), ("any", "any")):
        site.app.callback(Output(id, "children"), GO)(callback_options(transport=transport)(lambda value: value))
    return site


async def test_over_the_websocket_a_callback_that_stays_on_http_does_not_run(site: Site) -> None:
    async with site, site.websocket(await site.login("alice")) as socket:
        for number, id in enumerate(("stays", "goes", "any")):
            await socket.send(request(id, str(number)))
        found = await answers(socket, 3)
    assert found["0"]["message"].endswith("runs over HTTP only")
    assert (value_of(found["1"]), value_of(found["2"])) == (1, 2)


async def test_over_http_a_callback_that_has_to_be_on_the_websocket_does_not_run(site: Site) -> None:
    async with site:
        cookie = await site.login("alice")
        replies = [
            await site.request("POST", "/_dash-update-component", cookie, json=body(id))
            for id in ("stays", "goes", "any")
        ]
    assert [reply.status for reply in replies] == [200, 500, 200]
    assert replies[1].json == {"error": "this callback needs the websocket, which cannot be reached"}


async def test_nobody_is_told_of_a_public_callback_that_streams_and_of_no_other_transport() -> None:
    site = Site()
    for id, transport in (("stays", "http"), ("goes", "websocket"), ("any", "any")):
        public = public_callback(Output(id, "children"), GO, app=site.app)
        public(callback_options(transport=transport)(lambda value: value))
    site.backend.public_routes.add(["/"])
    async with site:
        listed = (await site.get("/_dash-dependencies")).json
    assert {one["output"]: one["websocket"] for one in listed} == {
        "stays.children": False,
        "goes.children": True,
        "any.children": False,
    }
