"""What may be called by whom, whichever way it is called: protected and public callbacks, public routes."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import dash
import pytest
from dash import Dash, Input, Output, Patch, State, html, no_update
from dash._callback_context import context_value
from dash._utils import AttributeDict
from dash.background_callback.managers import BaseBackgroundCallbackManager
from dash.exceptions import PreventUpdate
from quart_auth import AuthUser, QuartAuth, current_user

from dash_quart_ws import (
    ConfigurationError,
    add_public_routes,
    list_groups,
    protected_callback,
    public_callback,
)
from dash_quart_ws.sessions.access import PublicRoutes

from .test_rights import GO, Directory, Roles, answer, body, call, given_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from .site import Site


USERS = {"alice": ["traders", "staff"], "bob": ["staff"], "carol": []}
MET = {
    ("one_of", "traders managers"): {"alice"},
    ("one_of", "traders staff"): {"alice", "bob"},
    ("one_of", ""): set(),
    ("all_of", "traders staff"): {"alice"},
    ("all_of", "staff"): {"alice", "bob"},
    ("all_of", ""): {"alice", "bob", "carol"},
    ("none_of", "traders"): {"bob", "carol"},
    ("none_of", "traders staff"): {"carol"},
    ("none_of", ""): {"alice", "bob", "carol"},
    ("one_of", None): {"alice", "bob", "carol"},
    ("none_of", None): {"alice", "bob", "carol"},
}
"""Who may, for a demand; in dash-auth as well."""

NOBODY = "please log in"
MISSING = "not for you"


def kinds(site: Roles, **demands: Any) -> None:
    """The same demand on an async and on a synchronous callback."""
    options = {"unauthenticated_output": NOBODY, "missing_permissions_output": MISSING, "app": site.app, **demands}

    @protected_callback(Output("async", "children"), GO, api_endpoint="/api/async", **options)
    async def in_the_loop(value: Any = 0) -> str:
        site.ran.append("async")
        return f"for {current_user.auth_id}"

    @protected_callback(Output("sync", "children"), GO, api_endpoint="/api/sync", **options)
    def in_a_thread(value: Any = 0) -> str:
        site.ran.append("sync")
        return f"for {current_user.auth_id}"


async def tool(site: Site, cookie: str, name: str, **arguments: Any) -> Any:
    """Call an MCP tool: the JSON-RPC result."""
    params = {"name": name, "arguments": arguments}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    reply = await site.request("POST", "/_mcp", cookie, json=request)
    assert reply.status == 200, reply
    return reply.json["result"]


async def outcome(site: Roles, way: str, cookie: str, name: str) -> Any:
    """What calling a callback gives, in one of the ways in which it can be called."""
    if way == "http":
        return given_by(await site.post(cookie, name), name)
    if way == "websocket":
        async with site.websocket(cookie) as socket:
            return await call(socket, name)
    if way == "api":
        reply = await site.request("POST", f"/api/{name}", cookie, json={})
        return reply.json if reply.status == 200 else reply.status
    result = await tool(site, cookie, "in_a_thread", value=1)
    return result["structuredContent"]["response"][name]["children"] if not result.get("isError") else "error"


WAYS = [(way, name) for way in ("http", "websocket", "api") for name in ("async", "sync")] + [("mcp", "sync")]


# -------------------------------------------------------------------------------------------- who may call what


@pytest.mark.parametrize(("check_type", "groups"), MET, ids=str)
async def test_a_protected_callback_runs_for_those_who_meet_its_demand_whichever_way_it_is_called(
    check_type: Any, groups: str | None
) -> None:
    site = Roles(Directory(**USERS), dash={"enable_mcp": True})
    kinds(site, groups=None if groups is None else groups.split(), check_type=check_type)
    site.app.setup_apis()
    async with site:
        for user in USERS:
            cookie = await site.login(user)
            may = user in MET[check_type, groups]
            for way, name in WAYS:
                site.ran.clear()
                assert await outcome(site, way, cookie, name) == (f"for {user}" if may else MISSING), (user, way, name)
                # For a tool's description Dash calls the function once more.
                assert set(site.ran) == ({name} if may else set()), (user, way, name)


async def test_nobody_reaches_a_protected_callback_in_any_way() -> None:
    site = Roles(Directory(**USERS), dash={"enable_mcp": True})
    kinds(site, groups=["suspended"], check_type="none_of")
    site.app.setup_apis()
    async with site:
        for name in ("async", "sync"):
            assert (await site.post("", name)).status == 401
            assert (await site.request("POST", f"/api/{name}", json={})).status == 401
        assert (await site.request("POST", "/_mcp", json={})).status == 401
    assert site.ran == []


@pytest.mark.parametrize(("way", "name"), WAYS)
async def test_a_protected_callback_that_is_public_too_is_still_protected(way: str, name: str) -> None:
    site = Roles(Directory(**USERS), dash={"enable_mcp": True}, login_required=False if way == "mcp" else "auto")
    options = {"app": site.app, "groups": ["traders"], "missing_permissions_output": MISSING}

    def register(function: Callable[..., Any], name: str) -> None:
        protected = protected_callback(Output(f"{name}-2", "children"), GO, unauthenticated_output=NOBODY, **options)
        public = public_callback(Output(name, "children"), GO, api_endpoint=f"/api/{name}", app=site.app)
        public(protected(function))

    async def in_the_loop(value: Any = 0) -> str:
        site.ran.append("async")
        return f"for {current_user.auth_id}"

    def in_a_thread(value: Any = 0) -> str:
        site.ran.append("sync")
        return f"for {current_user.auth_id}"

    register(in_the_loop, "async")
    register(in_a_thread, "sync")
    site.app.setup_apis()
    async with site:
        if way == "mcp":  # two callbacks of one function: each is named after what it sets
            result = await tool(site, "", "sync_children", value=1)
            assert result["structuredContent"]["response"]["sync"]["children"] == NOBODY
            result = await tool(site, await site.login("bob"), "sync_children", value=1)
            assert result["structuredContent"]["response"]["sync"]["children"] == MISSING
            assert site.ran == []
            return
        assert await outcome(site, way, "", name) == NOBODY
        assert await outcome(site, way, await site.login("bob"), name) == MISSING
        assert site.ran == []
        assert await outcome(site, way, await site.login("alice"), name) == "for alice"


async def test_a_public_callback_is_the_same_function_as_before_and_a_protected_one_checks_whoever_calls_it() -> None:
    site = Roles(Directory())

    async def mine(value: Any) -> str:
        """What it does."""
        return "mine"

    assert public_callback(Output("a", "children"), GO, app=site.app)(mine) is mine
    protected = protected_callback(Output("b", "children"), GO, app=site.app)(mine)
    assert (protected.__name__, protected.__doc__) == ("mine", "What it does.")
    with pytest.raises(PreventUpdate):
        await protected(1)
    # A plain callback that is made of it is protected as well, and not public.
    site.app.callback(Output("c", "children"), GO)(protected)
    async with site:
        assert (await site.post("", "c")).status == 401
        assert given_by(await site.post(await site.login("alice"), "c"), "c") == "mine"


async def test_without_an_app_the_callbacks_go_to_the_app_that_is_set_up_first() -> None:
    site = Roles(Directory(alice=["traders"]))

    @protected_callback(Output("trade", "children"), GO, groups=["traders"])
    async def trade(value: Any) -> str:
        return "traded"

    @public_callback(Output("hello", "children"), GO)
    async def hello(value: Any) -> str:
        return "hello"

    async with site:
        assert given_by(await site.post(await site.login("alice"), "trade"), "trade") == "traded"
        assert (await site.post("", "trade")).status == 401
        assert given_by(await site.post("", "hello"), "hello") == "hello"


# --------------------------------------------------------------------------- what those get who may not


class Outputs:
    """Everything that may be given instead of the callback's own result."""

    @staticmethod
    def function() -> str:
        return f"{current_user.auth_id} may not"

    @staticmethod
    async def coroutine() -> str:
        await asyncio.sleep(0)
        return f"{current_user.auth_id} may not"

    class Object:
        def __call__(self) -> str:
            return "an object says no"


@pytest.mark.parametrize("way", ["http", "websocket"])
@pytest.mark.parametrize("name", ["async", "sync"])
@pytest.mark.parametrize(
    ("instead", "expected"),
    [
        ("no", "no"),
        ("", ""),
        (0, 0),
        ([1, 2], [1, 2]),
        (Outputs.function, "bob may not"),
        (Outputs.coroutine, "bob may not"),
        (Outputs.Object(), "an object says no"),
        (lambda: None, None),
        (no_update, None),
        (None, None),
        (html.B("no"), {"namespace": "dash_html_components", "type": "B", "props": {"children": "no"}}),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
async def test_who_may_not_gets_what_the_callback_says_for_them(
    instead: Any, expected: Any, name: str, way: str
) -> None:
    site = Roles(Directory(**USERS))
    kinds(site, groups=["traders"], missing_permissions_output=instead, unauthenticated_output=None)
    async with site:
        assert await outcome(site, way, await site.login("bob"), name) == expected
        assert await outcome(site, way, await site.login("alice"), name) == "for alice"


async def test_without_a_word_for_those_who_lack_the_groups_they_get_what_nobody_gets() -> None:
    site = Roles(Directory(**USERS))
    kinds(site, groups=["traders"], missing_permissions_output=None)
    async with site:
        for name in ("async", "sync"):
            assert await outcome(site, "http", await site.login("bob"), name) == NOBODY


async def test_where_no_login_is_required_nobody_gets_the_word_for_nobody() -> None:
    site = Roles(Directory(**USERS), login_required=False)
    kinds(site, groups=["suspended"], check_type="none_of")
    async with site:
        for name in ("async", "sync"):
            for way in ("http", "websocket"):
                assert await outcome(site, way, "", name) == NOBODY
                assert await outcome(site, way, await site.login("bob"), name) == "for bob"


class Account(AuthUser):
    """A user class that knows better than the token."""

    @property
    async def is_authenticated(self) -> bool:
        return self.auth_id not in (None, "suspended")


@pytest.mark.parametrize("way", ["http", "websocket"])
async def test_where_no_login_is_required_an_account_that_the_app_does_not_take_for_one_is_nobody(way: str) -> None:
    users = {**USERS, "suspended": ["traders"]}
    auth = functools.partial(QuartAuth, user_class=Account)
    site = Roles(Directory(**users), login_required=False, auth=auth)
    kinds(site, groups=["traders"])
    async with site:
        for name in ("async", "sync"):
            assert await outcome(site, way, await site.login("suspended"), name) == NOBODY
            assert await outcome(site, way, await site.login("alice"), name) == "for alice"


@pytest.mark.parametrize("name", ["async", "sync"])
async def test_an_api_that_has_no_word_for_those_who_may_not_gives_them_nothing(name: str, caplog: Any) -> None:
    site = Roles(Directory(**USERS))
    kinds(site, groups=["traders"], missing_permissions_output=None, unauthenticated_output=None)
    site.app.setup_apis()
    async with site:
        assert await outcome(site, "api", await site.login("bob"), name) in (204, 403)
        assert site.ran == []
    assert not [record for record in caplog.records if record.exc_info], "being refused is no fault of the server's"


# ----------------------------------------------------------------------------------- a job on another machine


class Elsewhere(BaseBackgroundCallbackManager):
    """Runs jobs where nothing is known but what travels as JSON, as a Celery worker does; at once, to spare the wait."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        super().__init__(None)

    def make_job_fn(self, fn: Any, progress: Any, key: str | None = None) -> Any:
        return fn

    def call_job_fn(self, key: str, job_fn: Any, args: Any, context: Any) -> str:
        # Of what Dash sends along these are no JSON, and Celery's own serializer drops them.
        sent = {name: value for name, value in context.items() if name not in ("updated_props", "dash_websocket")}
        there = json.loads(json.dumps([args, sent], default=lambda _value: None))
        self.results[key] = contextvars.Context().run(self._run, job_fn, *there)
        return "job"

    def _run(self, job_fn: Any, args: Any, context: dict[str, Any]) -> Any:
        context_value.set(AttributeDict(**context))
        return job_fn(*args)

    def get_result(self, key: str, job: Any) -> Any:
        return self.results.pop(key, self.UNDEFINED)

    def get_updated_props(self, key: str) -> dict[str, Any]:
        return {}

    def get_progress(self, key: str) -> None:
        return None

    def job_running(self, job: Any) -> bool:
        return False

    def terminate_job(self, job: Any) -> None:
        """There is nothing left of it."""

    def get_or_create_signing_secret(self, generate: Callable[[], bytes]) -> bytes:
        return b"only for tests, and long enough to be one"


async def test_a_job_on_another_machine_knows_the_groups_of_its_user_and_nothing_unknown_passes() -> None:
    directory = Directory(**USERS)
    site = Roles(directory, dash={"background_callback_manager": Elsewhere()})

    def job(name: str, **demands: Any) -> None:
        options = {"unauthenticated_output": NOBODY, "missing_permissions_output": MISSING, "background": True}

        @protected_callback(Output(name, "children"), GO, app=site.app, **options, **demands)
        def work(value: Any) -> str:
            return f"{name} of {list_groups()}"

    job("trade", groups=["traders"])
    job("outside", groups=["traders"], check_type="none_of")

    async def result_of(name: str, user: str) -> Any:
        cookie = await site.login(user)
        started = (await site.post(cookie, name)).json
        query = urlencode({"cacheKey": started["cacheKey"], "job": started["job"]})
        reply = await site.request("POST", f"/_dash-update-component?{query}", cookie, json=body(name))
        return given_by(reply, name)

    async with site:
        assert await result_of("trade", "alice") == "trade of ['staff', 'traders']"
        assert await result_of("outside", "alice") == MISSING
        assert await result_of("trade", "bob") == MISSING
        assert await result_of("outside", "bob") == "outside of ['staff']"
        directory.fails = True
        for name in ("trade", "outside"):
            assert await result_of(name, "bob") in (MISSING, NOBODY)


# ------------------------------------------------------------------------------- what an agent sees over MCP


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_one_user_may_see_is_in_nothing_that_another_user_gets_over_mcp() -> None:
    """Dash works out the first values of its tools for whoever asks first, and keeps them for everybody."""
    site = Roles(Directory(**USERS), dash={"enable_mcp": True})
    site.app.layout = html.Div([html.Button(id="go"), html.Div(id="sync"), html.Div(id="next")])

    @protected_callback(Output("sync", "children"), GO, groups=["traders"], app=site.app)
    def secret(value: Any = 0) -> str:
        return f"for {current_user.auth_id}"

    @site.app.callback(Output("next", "children"), Input("sync", "children"))
    def follows(text: str) -> str:
        return f"then {text}"

    async with site:
        alice, bob = await site.login("alice"), await site.login("bob")
        assert "for alice" in await everything_over_mcp(site, alice)
        assert "for alice" not in await everything_over_mcp(site, bob)


async def everything_over_mcp(site: Site, cookie: str) -> str:
    texts = []
    for method, params in (
        ("tools/list", {}),
        ("tools/call", {"name": "get_dash_component", "arguments": {"component_id": "sync", "property": "children"}}),
        ("tools/call", {"name": "get_dash_component", "arguments": {"component_id": "next", "property": "children"}}),
        ("resources/list", {}),
        ("resources/read", {"uri": "dash://layout"}),
        ("resources/read", {"uri": "dash://components"}),
    ):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await site.request("POST", "/_mcp", cookie, json=request)
        assert reply.status == 200, reply
        texts.append(reply.body)
    return "\n".join(texts)


# --------------------------------------------------------------------------------- Dash's own features survive


async def callback_reply(site: Site, cookie: str, payload: dict[str, Any], way: str) -> Any:
    """The `response` part of a callback's result, over HTTP or over the websocket."""
    if way == "http":
        reply = await site.request("POST", "/_dash-update-component", cookie, json=payload)
        return reply.json.get("response", reply.json) if reply.status == 200 else reply.status
    async with site.websocket(cookie) as socket:
        request = {"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": payload}
        await socket.send_json(request)
        found = await answer(socket)
        return found["data"]["response"] if found["status"] == "ok" else found


@pytest.mark.parametrize("way", ["http", "websocket"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_several_outputs_dict_arguments_patches_and_no_update_pass_through(way: str, is_async: bool) -> None:
    site = Roles(Directory(**USERS))

    def several(go: int, *, text: str) -> dict[str, Any]:
        patch = Patch()
        patch["rows"].append(go)
        return {"first": f"{go} {text}", "second": no_update, "third": patch}

    async def several_async(go: int, *, text: str) -> dict[str, Any]:
        return several(go, text=text)

    protected_callback(
        output={
            "first": Output("a", "children"),
            "second": Output("b", "children"),
            "third": Output("c", "data"),
        },
        inputs={"go": GO},
        state={"text": State("text", "value")},
        groups=["traders"],
        missing_permissions_output=lambda: {"first": "missing", "second": no_update, "third": no_update},
        app=site.app,
    )(several_async if is_async else several)
    payload = {
        "output": "..a.children...b.children...c.data..",
        "outputs": [{"id": id, "property": name} for id, name in (("a", "children"), ("b", "children"), ("c", "data"))],
        "inputs": [{"id": "go", "property": "n_clicks", "value": 3}],
        "changedPropIds": ["go.n_clicks"],
        "state": [{"id": "text", "property": "value", "value": "hello"}],
    }
    async with site:
        found = await callback_reply(site, await site.login("alice"), payload, way)
        operations = [{"operation": "Append", "location": ["rows"], "params": {"value": 3}}]
        assert found["a"] == {"children": "3 hello"}
        assert "b" not in found
        assert found["c"]["data"]["operations"] == operations
        assert await callback_reply(site, await site.login("bob"), payload, way) == {"a": {"children": "missing"}}


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_protected_callback_raises_goes_to_its_on_error_and_a_refusal_does_not(is_async: bool) -> None:
    site = Roles(Directory(**USERS))
    errors = []

    def on_error(error: Exception) -> str:
        errors.append(str(error))
        return "something went wrong"

    def fails(value: Any) -> str:
        raise ValueError(f"with {value}")

    async def fails_async(value: Any) -> str:
        return fails(value)

    protected_callback(
        Output("fail", "children"),
        GO,
        groups=["traders"],
        on_error=on_error,
        running=[(Output("go", "disabled"), True, False)],
        app=site.app,
    )(fails_async if is_async else fails)
    async with site:
        alice, bob = await site.login("alice"), await site.login("bob")
        assert given_by(await site.post(bob, "fail"), "fail") is None
        assert errors == []
        assert given_by(await site.post(alice, "fail"), "fail") == "something went wrong"
        assert errors == ["with 1"]
        dependencies = (await site.get("/_dash-dependencies", alice)).json
        (shown,) = [one for one in dependencies if one["output"] == "fail.children"]
        assert shown["running"] == {"running": {"go.disabled": True}, "runningOff": {"go.disabled": False}}


async def test_a_protected_callback_sees_what_any_callback_sees_and_synchronous_ones_run_in_a_thread() -> None:
    site = Roles(Directory(**USERS))

    @protected_callback(Output("sync", "children"), GO, groups=["staff"], app=site.app)
    def look(value: Any) -> str:
        seen = [dash.ctx.triggered_id, current_user.auth_id, list_groups(), threading.current_thread().name]
        return json.dumps([*seen[:3], threading.current_thread() is threading.main_thread()])

    async with site:
        cookie = await site.login("bob")
        expected = ["go", "bob", ["staff"], False]
        assert json.loads(given_by(await site.post(cookie, "sync"), "sync")) == expected
        async with site.websocket(cookie) as socket:
            assert json.loads(await call(socket, "sync")) == expected


# ------------------------------------------------------------------------------------------- what is an error


@pytest.mark.parametrize("option", ["groups_key", "groups_str_split"])
def test_what_dash_auth_reads_from_its_own_session_is_an_error_that_says_what_to_do(option: str) -> None:
    with pytest.raises(TypeError, match=rf"{option}=.*list_groups"):
        protected_callback(Output("a", "children"), GO, groups=["a"], **{option: "x"})
    with pytest.raises(TypeError, match=option):
        list_groups(**{option: "x"})  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("demands", "message"),
    [
        ({"check_type": "any_of", "groups": ["a"]}, "any_of"),
        ({"check_type": None, "groups": ["a"]}, "check_type"),
        ({"groups": "traders"}, r"\['traders'\]"),
        ({"groups": b"traders"}, "groups="),
        ({"groups": 7}, "iterable|groups="),
    ],
)
def test_a_demand_that_means_nothing_is_a_type_error(demands: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        protected_callback(Output("a", "children"), GO, **demands)


@pytest.mark.parametrize("is_public", [False, True])
async def test_a_demand_for_groups_without_a_source_is_an_error_at_the_first_contact_that_names_the_callback(
    is_public: bool,
) -> None:
    site = Roles()

    async def trade(value: Any) -> str:
        return "traded"

    protected = protected_callback(Output("trade", "children"), GO, groups=["traders"], app=site.app)(trade)
    if is_public:
        public_callback(Output("public", "children"), GO, app=site.app)(protected)
    async with site:
        with pytest.raises(ConfigurationError, match=r"'trade\.children'.*list_groups="):
            await site.server.extensions["dash_quart_ws"].contact()
        assert (await site.get("/")).status == 500


async def test_a_demand_for_a_login_alone_needs_no_source() -> None:
    async with Roles().protected("anybody") as site:
        assert given_by(await site.post(await site.login("alice"), "anybody"), "anybody") == "anybody 1"


async def test_a_refusal_is_in_the_security_log_with_who_what_and_why(caplog: pytest.LogCaptureFixture) -> None:
    site = Roles(Directory(**USERS))
    kinds(site, groups=["traders", "managers"], check_type="all_of")
    async with site:
        await site.post(await site.login("bob"), "async")
        await site.post(await site.login("bob"), "sync")
    lines = [one.getMessage() for one in caplog.records if one.name == "dash_quart_ws.security"]
    denied = [line for line in lines if line.startswith("deny")]
    assert len(denied) == 2
    for line in denied:
        assert "user='bob'" in line
        assert "all_of ['managers', 'traders']" in line
    assert "in_the_loop" in denied[0]
    assert "in_a_thread" in denied[1]


# ---------------------------------------------------------------------------------------------- public routes


@pytest.mark.parametrize(
    ("route", "opens", "leaves"),
    [
        ("/login", ["/login", "/login/"], ["/login/x", "/", "/Login", "/log", "/a/login"]),
        ("/login/", ["/login/"], ["/login/x"]),
        (
            "/user/<name>/public",
            ["/user/a/public"],
            ["/user/a", "/user/a/b/public", "/user//public", "/user/a/private"],
        ),
        ("/item/<int:number>", ["/item/7"], ["/item/x", "/item/-7", "/item/"]),
        ("/public/<path:rest>", ["/public/a", "/public/a/b"], ["/public", "/public/"]),
    ],
)
def test_a_public_route_opens_what_it_matches_and_nothing_else(route: str, opens: list[str], leaves: list[str]) -> None:
    routes = PublicRoutes()
    routes.add([route])
    assert [path for path in opens if not routes.match(path)] == []
    assert [path for path in leaves if routes.match(path)] == []


@pytest.mark.parametrize("routes", ["/login", ["login"], [""], [7], [None], ["/<"], ["/<nothing:x>"], ["/<int:>"]])
def test_what_is_no_route_is_a_configuration_error(routes: Any) -> None:
    site = Roles()
    with pytest.raises(ConfigurationError, match="route"):
        add_public_routes(site.app, routes)
    assert not site.backend.public_routes, "nothing was opened"


def test_public_routes_are_for_our_backend() -> None:
    with pytest.raises(TypeError, match="QuartBackend"):
        add_public_routes(Dash("another"), ["/login"])
