"""`QuartBackend` with the stock `dash.Dash`: construction, set-up, and what an app can do with it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from dash import Dash, Input, Output, callback, dcc, html
from dash.backends import get_backend
from quart import Quart
from quart_auth import AuthUser, QuartAuth, login_required, login_user, logout_user

from dash_quart_ws import ConfigurationError, QuartBackend, current_session

from .server import call, closed, messages, next_message, request_message, result, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .server import Server

SECRET = "only for tests, and long enough to be one"


def add_login(server: Quart, **options: Any) -> None:
    """What every login-protected app has: a secret, a `QuartAuth`, and views to log in and out."""
    server.secret_key = SECRET
    QuartAuth(server, cookie_secure=False, **options)

    @server.get("/login/<name>")
    async def login(name: str) -> str:
        login_user(AuthUser(name))
        return name

    @server.get("/logout")
    async def logout() -> str:
        logout_user()
        return "out"


def make(*, layout: Any = None, **options: Any) -> Dash:
    """A Dash app with nothing stored on disk."""
    app = Dash(__name__, backend=QuartBackend(broker="memory:", **options), websocket_callbacks=True)
    app.layout = layout or html.Div(id="page")
    return app


def post(output: str, value: Any = 1) -> dict[str, Any]:
    return json.loads(request_message(output, value))["payload"]


# ------------------------------------------------------------------------------------------------ construction


def test_the_stock_dash_class_takes_a_configured_backend_and_the_plain_class() -> None:
    configured = Dash(__name__, backend=QuartBackend(login_url="/in"))
    plain = Dash(__name__, backend=QuartBackend)
    assert type(configured) is type(plain) is Dash
    for app, login_url in ((configured, "/in"), (plain, "/login")):
        assert isinstance(app.backend, QuartBackend)
        assert QuartBackend.of(app) is app.backend
        assert app.backend.server_type == "quart"
        assert app.backend.options.login_url == login_url
        assert isinstance(app.server, Quart)
    assert QuartBackend.options.login_url == "/login", "a configured backend configures no other"


def test_an_existing_quart_app_is_served_on_with_server() -> None:
    server = Quart("mine")
    app = Dash(__name__, backend=QuartBackend(server=server))
    assert app.server is server


async def test_init_app_attaches_to_a_quart_app_made_elsewhere() -> None:
    app = Dash(__name__, server=False, backend=QuartBackend(broker="memory:"))
    app.layout = html.Div("attached")
    server = Quart("made elsewhere")
    app.init_app(server)
    assert app.server is server
    response = await server.test_client().get("/_dash-layout")
    assert "attached" in await response.get_data(as_text=True)


def test_of_names_the_backend_that_an_app_has_instead() -> None:
    with pytest.raises(TypeError, match=r"QuartDashServer: give it backend=QuartBackend\(\)"):
        QuartBackend.of(Dash(__name__, backend=get_backend("quart")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"login_ulr": "/in"}, "did you mean 'login_url'"),
        ({"login_url": "https://example.org/login"}, "give a path of this server"),
        ({"login_url": "//example.org"}, "give a path of this server"),
        ({"login_required": "yes"}, "give True, False or 'auto'"),
        ({"idle_timeout": 0}, "above 0 or None"),
        ({"close_timeout": None}, "above 0"),
        ({"callback_threads": 2.5}, "a whole number above 0"),
        ({"callback_threads": 2, "callback_threads_per_user": 3}, "lower it"),
        ({"broker": "amqp://localhost"}, "give 'redis:"),
        ({"compression": "on"}, "give True or False"),
        ({"server": object()}, "takes a Quart app"),
    ],
)
def test_a_wrong_option_is_an_error_at_construction_that_says_what_to_do(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        QuartBackend(**options)


def test_a_brokers_password_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigurationError) as error:
        QuartBackend(broker="amqp://:hunter2@localhost/0")
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigurationError) as error:
        Dash(__name__, backend=QuartBackend(broker="redis://:hunter2@localhost/zero"))
    assert "hunter2" not in str(error.value)


def test_an_allowed_origin_that_is_none_is_an_error_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="is no origin"):
        Dash(__name__, backend=QuartBackend(), websocket_allowed_origins=["example.org"])


def test_two_apps_on_one_server_that_disagree_about_their_sessions_are_an_error() -> None:
    server = Quart("both")
    Dash("one", backend=QuartBackend(server=server, idle_timeout=60), url_base_pathname="/one/")
    with pytest.raises(ConfigurationError, match="idle_timeout= differs between two Dash apps"):
        Dash("two", backend=QuartBackend(server=server), url_base_pathname="/two/")


async def test_fallback_keys_that_are_one_string_are_an_error() -> None:
    app = make()
    add_login(app.server)
    app.server.config["SECRET_KEY_FALLBACKS"] = "each of these characters would be a key"
    with pytest.raises(ConfigurationError, match="make it a list of keys"):
        await app.server.startup()


async def test_a_server_without_a_secret_key_does_not_start_and_says_why() -> None:
    app = make()
    QuartAuth(app.server)
    with pytest.raises(ConfigurationError, match=r"set app\.server\.secret_key"):
        await app.server.startup()


async def test_login_required_without_anything_to_log_in_to_does_not_start() -> None:
    app = make(login_required=True)
    with pytest.raises(ConfigurationError, match="has no QuartAuth"):
        await app.server.startup()


async def test_without_anything_to_log_in_to_the_log_says_that_everybody_may_see_everything(caplog: Any) -> None:
    app = make()
    await app.server.startup()
    assert "everybody may see and call everything" in caplog.text
    assert (await app.server.test_client().get("/_dash-layout")).status_code == 200
    await app.server.shutdown()


# ------------------------------------------------------------------------------------------------ first contact


async def test_eight_concurrent_first_requests_all_succeed() -> None:
    app = make()
    runs = []

    def layout() -> html.Div:
        runs.append(threading.current_thread())
        return html.Div("ready")

    app.config.suppress_callback_exceptions = True
    app.layout = layout

    @callback(Output("a", "children"), Input("b", "value"))
    async def answer(value: int) -> int:
        return value + 1

    replies = await asyncio.gather(
        *(app.server.test_client().post("/_dash-update-component", json=post("a.children", n)) for n in range(8))
    )
    assert [reply.status_code for reply in replies] == [200] * 8
    assert [result_of(await reply.get_json()) for reply in replies] == list(range(1, 9))
    assert len(runs) == 1, "the app was set up once"


def result_of(response: dict[str, Any]) -> Any:
    (props,) = response["response"].values()
    (value,) = props.values()
    return value


async def test_a_layout_that_fails_once_loses_no_callback_and_no_asset(tmp_path: Path) -> None:
    (tmp_path / "once.js").write_text("// once")
    app = Dash(__name__, backend=QuartBackend(broker="memory:"), assets_folder=str(tmp_path))
    app.config.suppress_callback_exceptions = True
    fails = True

    def layout() -> html.Div:
        if fails:
            raise RuntimeError("the database is not up yet")
        return html.Div(id="page")

    app.layout = layout

    @callback(Output("kept", "children"), Input("b", "value"))
    async def kept(value: int) -> int:
        return value

    client = app.server.test_client()
    for _ in range(2):
        assert (await client.post("/_dash-update-component", json=post("kept.children"))).status_code == 500
    fails = False
    assert (await client.post("/_dash-update-component", json=post("kept.children"))).status_code == 200
    assert (await (await client.get("/")).get_data(as_text=True)).count("once.js") == 1


async def test_set_up_sees_nobody_even_when_somebody_makes_the_first_contact() -> None:
    app = make()
    add_login(app.server)
    cookie = await cookie_of(app.server, "alice")
    seen = []
    app2 = make(layout=None)
    add_login(app2.server)

    def layout() -> html.Div:
        session = current_session()
        seen.append(session.user if session else None)
        return html.Div(id="page")

    app2.config.suppress_callback_exceptions = True
    app2.layout = layout
    reply = await app2.server.test_client().get("/_dash-layout", headers={"Cookie": cookie})
    assert reply.status_code == 200
    assert seen == [None, "alice"], "once as nobody to set up, once for the visitor"


async def cookie_of(server: Quart, name: str) -> str:
    reply = await server.test_client().get(f"/login/{name}")
    return reply.headers["Set-Cookie"].partition(";")[0]


async def test_in_debug_mode_a_missing_login_is_still_401_and_an_unknown_path_404() -> None:
    server = Quart("debug")
    app = Dash(__name__, backend=QuartBackend(server=server, broker="memory:"), url_base_pathname="/dash/")
    app.layout = html.Div(id="page")
    add_login(server)

    @server.get("/mine")
    @login_required
    async def mine() -> str:
        return "mine"

    @server.get("/broken")
    async def broken() -> str:
        raise ZeroDivisionError

    app.enable_dev_tools(debug=True, dev_tools_hot_reload=False)
    client = server.test_client()
    assert (await client.get("/mine")).status_code == 401
    assert (await client.get("/dash/_dash-layout")).status_code == 401
    assert (await client.get("/nowhere")).status_code == 404
    assert (await client.post("/mine")).status_code == 405
    broken_page = await client.get("/broken")
    assert broken_page.status_code == 500
    assert "ZeroDivisionError" not in await broken_page.get_data(as_text=True), "Quart's own page, not Dash's"


async def test_in_debug_mode_an_apps_handler_of_every_exception_goes_on_with_all_but_dashs() -> None:
    server = Quart("debug")

    @server.errorhandler(Exception)
    def theirs(error: Exception) -> tuple[str, int]:
        return f"theirs: {type(error).__name__}", 418

    @server.get("/broken")
    async def broken() -> str:
        raise ZeroDivisionError

    async def fails(_value: int) -> None:
        raise ZeroDivisionError("what went wrong")

    for prefix in ("/one/", "/two/"):
        app = Dash(__name__, backend=QuartBackend(server=server, broker="memory:"), url_base_pathname=prefix)
        app.layout = html.Div([html.Div(id="a"), dcc.Input(id="go")])
        app.callback(Output("a", "children"), Input("go", "n_clicks"))(fails)
        app.enable_dev_tools(debug=True, dev_tools_hot_reload=False)
    client = server.test_client()
    for path, name in (("/broken", "ZeroDivisionError"), ("/nowhere", "NotFound")):
        assert await (await client.get(path)).get_data(as_text=True) == f"theirs: {name}"
    for prefix in ("/one/", "/two/"):
        reply = await client.post(f"{prefix}_dash-update-component", json=post("a.children"))
        assert reply.status_code == 500
        assert "what went wrong" in await reply.get_data(as_text=True), "Dash's traceback page"


async def test_in_debug_mode_a_failed_http_callback_shows_dashs_traceback_page() -> None:
    app = make(layout=html.Div([html.Div(id="a"), dcc.Input(id="go")]))

    @app.callback(Output("a", "children"), Input("go", "n_clicks"))
    async def fails(_value: int) -> None:
        raise ZeroDivisionError("what went wrong")

    app.enable_dev_tools(debug=True, dev_tools_hot_reload=False)
    reply = await app.server.test_client().post("/_dash-update-component", json=post("a.children"))
    page = await reply.get_data(as_text=True)
    assert reply.status_code == 500
    assert "what went wrong" in page
    assert "in fails" in page


async def test_a_body_that_is_no_callback_request_is_400() -> None:
    client = make().server.test_client()
    for body in ("not JSON", "[]", "{}", '{"output": 3}'):
        reply = await client.post("/_dash-update-component", data=body, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400, body


# ------------------------------------------------------------------------------------- two apps on one server


async def test_one_logout_ends_the_sockets_of_both_apps_on_a_server(tmp_path: Path) -> None:
    with serving(tmp_path, app="tests.apps.two:server") as server:
        cookie = server.login("alice")
        sockets = []
        for prefix in ("one", "two"):
            url = f"ws://127.0.0.1:{server.port}/{prefix}/_dash-ws-callback"
            socket = await connect(url, server, cookie)
            payload = await call(socket, "out.children")
            assert result(payload) == f"app {prefix}"
            sockets.append(socket)
        await server.aget("/logout", cookie)
        assert [await closed(socket) for socket in sockets] == [(4001, "logged out")] * 2


def test_what_is_asked_of_one_app_on_a_server_is_answered_by_that_app(tmp_path: Path) -> None:
    """Dash takes the app that was made last where nothing says which."""
    with serving(tmp_path, app="tests.apps.two:server") as server:
        cookie = server.login("alice")
        for prefix in ("one", "two"):
            reply = server.request("POST", f"/{prefix}/api", cookie=cookie, body={"clicks": 1})
            assert reply.json == f"app {prefix}"
            params = {"name": "tell", "arguments": {"clicks": 3}}
            calling = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            reply = server.request("POST", f"/{prefix}/_mcp", cookie=cookie, body=calling)
            assert reply.json["result"]["structuredContent"]["response"] == {"out": {"title": f"tool {prefix} 3"}}


async def connect(url: str, server: Server, cookie: str) -> Any:
    return await websockets.connect(url, origin=server.origin, additional_headers={"Cookie": cookie})


# ------------------------------------------------------------------------------------------- one real server


async def test_the_first_contact_may_be_a_websocket(tmp_path: Path) -> None:
    with serving(tmp_path, env={"BROKER": f"sqlite:///{tmp_path}/kept.sqlite3"}) as server:
        cookie = server.login("alice")
    with serving(tmp_path, env={"BROKER": f"sqlite:///{tmp_path}/kept.sqlite3"}) as server:
        async with server.connect(cookie) as socket:
            assert result(await call(socket, "echo.children", 1)) == "alice 1"


@pytest.mark.parametrize("output", ["who.children", "out.children"])
async def test_a_callback_sees_over_the_websocket_what_it_sees_over_http(hypercorn: Server, output: str) -> None:
    cookie = hypercorn.login("alice")
    headers = {"User-Agent": "a browser", "Origin": hypercorn.origin}
    path = f"/_dash-update-component?endId={await asyncio.to_thread(hypercorn.page_token, cookie)}"
    reply = await asyncio.to_thread(hypercorn.request, "POST", path, cookie=cookie, body=post(output), headers=headers)
    over_http = result_of(reply.json)
    over_http["path"] = over_http["path"].replace(f"endId={over_http['args'].pop('endId')}", "")
    async with hypercorn.connect(cookie, user_agent_header="a browser") as socket:
        over_websocket = result(await call(socket, output))
    assert over_websocket.pop("websocket") is True
    assert over_http.pop("websocket") is False
    assert over_websocket.pop("marker") == "from before_websocket"
    assert over_http.pop("marker") == "from before_request"
    assert over_websocket.pop("websocket_user") == over_http["user"] == "alice"
    assert over_websocket.pop("websocket_session") == over_http["session"]
    del over_http["websocket_user"], over_http["websocket_session"]
    assert over_websocket == over_http
    assert over_http["cookies"] == ["QUART_AUTH"]
    assert over_http["agent"] == "a browser"


async def test_a_callback_that_blocks_delays_nobody_elses(hypercorn: Server) -> None:
    alice, bob = hypercorn.login("alice"), hypercorn.login("bob")
    async with hypercorn.connect(alice) as hers, hypercorn.connect(bob) as his:
        for number in range(8):
            await hers.send(request_message("block.children", 1.5, str(number)))
        posted = asyncio.create_task(
            asyncio.to_thread(
                hypercorn.request, "POST", "/_dash-update-component", cookie=alice, body=post("block.children", 1.5)
            )
        )
        for answer in ("echo.children", "sync.children"):
            assert result(await call(his, answer, 1)).startswith("bob 1")
        reply = await asyncio.to_thread(
            hypercorn.request, "POST", "/_dash-update-component", cookie=bob, body=post("sync.children")
        )
        assert result_of(reply.json) == "bob 1 False"
        assert not posted.done()
        assert hypercorn.get("/state").json["finished"] == []
        await posted
    assert "synchronous callbacks wait for a thread" in hypercorn.log


async def test_get_prop_asks_the_tab_that_called_and_nobody_else_may_answer(hypercorn: Server) -> None:
    alice, mallory = hypercorn.login("alice"), hypercorn.login("mallory")
    async with hypercorn.connect(alice) as hers, hypercorn.connect(mallory) as his:
        await hers.send(request_message("prop.children"))
        question = await next_message(hers, "get_props_request")
        assert question["payload"] == {"componentId": "text", "properties": ["value"]}
        forged = {"type": "get_props_response", "requestId": question["requestId"], "payload": {"value": "forged"}}
        await his.send(json.dumps({**forged, "rendererId": "tab"}))
        assert (await next_message(his, "error"))["requestId"] == question["requestId"]
        await hers.send(json.dumps({**forged, "rendererId": "another tab"}))
        assert (await next_message(hers, "error"))["requestId"] == question["requestId"]
        answer = {**forged, "rendererId": "tab", "payload": {"value": "typed"}}
        await hers.send(json.dumps(answer))
        assert result((await next_message(hers, "callback_response"))["payload"]) == "browser says typed"


async def test_an_exceptions_text_stays_on_the_server_under_an_id_that_the_browser_gets(hypercorn: Server) -> None:
    async with hypercorn.connect(hypercorn.login("alice")) as socket:
        payload = await call(socket, "fail.children")
    assert payload["status"] == "error"
    assert "secret" not in json.dumps(payload)
    error_id = payload["message"].removeprefix("Callback failed (error ").removesuffix(")")
    assert f"error={error_id}" in hypercorn.log
    assert "RuntimeError: the secret of the exception" in hypercorn.log


async def test_a_push_reaches_every_tab_of_the_user_and_nobody_else(hypercorn: Server) -> None:
    alice, bob = hypercorn.login("alice"), hypercorn.login("bob")
    async with hypercorn.connect(alice) as hers, hypercorn.connect(bob) as his:
        for tab in ("first", "second"):
            await hers.send(request_message("echo.children", 1, "1", tab))
            await next_message(hers, "callback_response")
        await call(his, "echo.children")
        assert (await hypercorn.aget("/push/alice/hello")).json == {"connections": 1}
        pushed = [await next_message(hers) for _ in range(2)]
        assert [message["rendererId"] for message in pushed] == ["first", "second"]
        assert pushed[0]["payload"] == {"componentId": "out", "props": {"title": "hello"}}
        await his.send('{"type": "heartbeat"}')
        assert await next_message(his) == {"type": "heartbeat_ack"}, "nothing of alice's came before it"


async def test_a_ban_ends_every_session_of_the_user_and_a_new_login_works_at_once(hypercorn: Server) -> None:
    cookies = [hypercorn.login("mallory") for _ in range(3)]
    async with (
        hypercorn.connect(cookies[0]) as one,
        hypercorn.connect(cookies[1]) as two,
        hypercorn.connect(hypercorn.login("bob")) as other,
    ):
        receipt = (await hypercorn.aget("/revoke/mallory")).json
        assert (receipt["closed"], receipt["confirmed"]) == (2, 1)
        assert receipt["slowest_ms"] < 2000
        assert await closed(one) == await closed(two) == (4001, "banned")
        assert result(await call(other, "echo.children")) == "bob 1"
    for cookie in cookies:
        assert hypercorn.get("/me", cookie).json == {"user": None, "session": None}
    assert hypercorn.get("/me", hypercorn.login("mallory")).json["user"] == "mallory"


async def test_a_running_async_callback_is_cancelled_and_a_threads_result_dropped_when_the_session_ends(
    hypercorn: Server,
) -> None:
    cookie = hypercorn.login("carol")
    async with hypercorn.bridge(cookie) as socket:
        before = hypercorn.get("/state").json
        await socket.send(request_message("slow.children", 1, "slow"))
        await socket.send(request_message("block.children", 0.5, "block"))
        await wait_until_started(hypercorn, before, ["slow", "block"])
        await hypercorn.aget("/logout", cookie)
        received = [message async for message in messages(socket)] if socket.close_code is None else []
        assert received == []
        assert socket.close_code == 4501

    def both_ended() -> bool:
        return len(hypercorn.get("/state").json["finished"]) == len(before["finished"]) + 2

    await until(both_ended)
    assert "after it was cancelled" not in hypercorn.log


@pytest.mark.parametrize(("output", "value"), [("slow.children", 1), ("block.children", 3)])
async def test_a_callback_over_http_is_answered_401_as_soon_as_its_session_ends(
    hypercorn: Server, output: str, value: float
) -> None:
    cookie = hypercorn.login("dora")
    before = hypercorn.get("/state").json
    posted = asyncio.create_task(
        asyncio.to_thread(hypercorn.request, "POST", "/_dash-update-component", cookie=cookie, body=post(output, value))
    )
    await wait_until_started(hypercorn, before, [output.partition(".")[0]])
    await hypercorn.aget("/logout", cookie)
    reply = await posted
    assert reply.status == 401
    finished = hypercorn.get("/state").json["finished"][len(before["finished"]) :]
    assert finished == (["slow"] if output == "slow.children" else []), "async: cancelled; in a thread: dropped"


async def wait_until_started(server: Server, before: dict[str, Any], names: list[str]) -> None:
    def started() -> bool:
        new = server.get("/state").json["started"][len(before["started"]) :]
        return sorted(new) == sorted(names)

    await until(started)


async def until(condition: Callable[[], bool]) -> None:
    from .server import await_for

    await await_for(condition)


async def test_behind_a_proxy_the_pages_own_origin_is_what_the_proxy_says_and_only_with_its_middleware(
    tmp_path: Path, hypercorn: Server
) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "dash.example"}
    with serving(tmp_path, app="tests.apps.proxied:asgi") as server:
        cookie = server.login("alice")
        headers = {**forwarded, "Cookie": cookie}
        async with server.connect(origin="https://dash.example", additional_headers=headers) as socket:
            assert result(await call(socket, "who.children"))["remote"] == "203.0.113.7"
        for origin in ("http://dash.example", server.origin):
            with pytest.raises(websockets.InvalidStatus, match="403"):
                await server.connect(origin=origin, additional_headers=headers).__aenter__()
    headers = {**forwarded, "Cookie": hypercorn.login("alice")}
    with pytest.raises(websockets.InvalidStatus, match="403"):
        await hypercorn.connect(origin="https://dash.example", additional_headers=headers).__aenter__()
