"""Login protection of Dash's own routes: who sees what, and where they are sent instead."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urljoin, urlsplit

import dash
import pytest
from dash import Dash, Input, Output, dcc, hooks, html
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart, websocket
from quart_auth import AuthUser, QuartAuth, current_user, login_user
from werkzeug.datastructures import Headers

from dash_quart_ws import ConfigurationError, QuartBackend, add_public_routes, public_callback, safe_next
from dash_quart_ws.sessions.access import PublicRoutes
from tests.asgi import InProcessSocket
from tests.fakes import Clock

from .site import ECHO, ORIGIN, SECRET, Reply, Site, database, ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

OPEN = ("_dash-component-suites/", "_dash-quart-ws/", "_favicon.ico", "_reload-hash", "assets/")
"""What a visitor without a login may have of Dash's."""


async def test_as_nobody_every_route_of_dashs_but_a_few_needs_a_login() -> None:
    async with Site() as site:
        await site.get("/me")  # the first contact registers what Dash registers late
        own = {
            "login",
            "login_page",
            "slow_login",
            "logout",
            "slow_logout",
            "renew",
            "slow_renew",
            "me",
            "secret",
            "token",
        }
        rules = [
            rule
            for rule in site.server.url_map.iter_rules()
            if rule.endpoint not in own and not rule.websocket and rule.endpoint != "static"
        ]
        assert len(rules) >= 8
        for rule in rules:
            path = "/" + "".join(part if not dynamic else "x" for dynamic, part in rule._trace if part != "|").lstrip(
                "/"
            )
            for method in sorted(rule.methods & {"GET", "POST", "PUT", "DELETE"}):
                reply = await site.request(method, path)
                if any(name in path for name in OPEN):
                    assert reply.status not in (302, 401), (method, path)
                elif reply.status == 302:
                    assert urlsplit(reply.headers["Location"]).path == "/login", (method, path)
                else:
                    assert reply.status == 401, (method, path)


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("/", "/"),
        ("/reports/2026", "/reports/2026"),
        ("/reports?year=2026&q=a%20b", "/reports?year=2026&q=a%20b"),
        ("/r%C3%A9sum%C3%A9", "/résumé"),
    ],
)
async def test_a_page_leads_to_the_login_and_the_login_back_to_the_page(asked: str, leads_to: str) -> None:
    async with Site() as site:
        reply = await site.get(asked)
        assert reply.status == 302
        assert reply.headers["Cache-Control"] == "no-store"
        location = urlsplit(reply.headers["Location"])
        assert (location.netloc, location.path) == ("", "/login")
        (back,) = parse_qs(location.query)["next"]
        assert back == leads_to
        async with site.server.test_request_context(f"/login?{location.query}"):
            assert safe_next() == leads_to


async def test_a_login_url_of_the_apps_own_is_where_pages_lead() -> None:
    async with Site(login_url="/sign/in?theme=dark", login_route="/sign/in") as site:
        assert (await site.get("/page")).headers["Location"] == "/sign/in?theme=dark&next=/page"


async def test_below_a_root_path_pages_lead_to_the_login_there() -> None:
    async with Site() as site:
        reply = await site.get("/behind/page", root_path="/behind")
        location = urlsplit(reply.headers["Location"])
        assert (location.path, parse_qs(location.query)["next"]) == ("/behind/login", ["/behind/page"])


async def test_data_is_refused_with_401_and_says_where_to_log_in() -> None:
    async with Site() as site:
        for method, path in (
            ("GET", "/_dash-layout"),
            ("GET", "/_dash-dependencies"),
            ("POST", "/_dash-update-component"),
        ):
            reply = await site.request(method, path, json=ECHO if method == "POST" else None)
            assert (reply.status, reply.json) == (401, {"error": "login required", "login_url": "/login"})
            assert reply.headers["Cache-Control"] == "no-store"


async def test_without_a_login_page_a_page_is_a_plain_401_and_not_a_redirect_to_itself() -> None:
    async with Site(login_route=None) as site:
        for path in ("/", "/login", "/login?next=/", "/anything"):
            reply = await site.get(path)
            assert reply.status == 401
            assert "Location" not in reply.headers
            assert reply.headers["Cache-Control"] == "no-store"
        assert (await site.get("/_dash-layout")).json["login_url"] is None


async def test_a_login_page_that_answers_posts_only_is_no_page_to_lead_to() -> None:
    site = Site(login_route=None)

    @site.server.post("/login")
    async def login_only() -> str:
        return "posted"

    async with site:
        assert (await site.get("/")).status == 401


async def test_a_login_page_with_a_slash_at_its_end_is_one() -> None:
    async with Site(login_route="/login/") as site:
        reply = await site.get("/page")
        assert (reply.status, reply.headers["Location"]) == (302, "/login?next=/page")


async def test_the_catch_all_of_another_dash_app_is_no_login_page() -> None:
    server = Quart("two apps")
    server.secret_key = SECRET
    backend = QuartBackend(server=server, broker="memory:")
    apps = [
        Dash(f"app{prefix}", backend=backend, url_base_pathname=prefix, assets_folder="no-assets")
        for prefix in ("/one/", "/login/")
    ]
    for app in apps:
        app.layout = html.Div()
    QuartAuth(server)
    for path in ("/one/", "/login/", "/login/page"):
        response = await server.test_client().get(path)
        assert response.status_code == 401


async def test_what_a_user_sees_is_stored_by_nobody() -> None:
    async with Site() as site:
        cookie = await site.login("alice")
        for path in ("/", "/page", "/_dash-layout", "/_dash-dependencies"):
            reply = await site.get(path, cookie)
            assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
        reply = await site.request("POST", "/_dash-update-component", cookie, json=ECHO)
        assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
        assert reply.json["response"] == {"echo": {"children": "alice 1"}}


async def test_an_open_bundle_is_open_and_may_be_stored() -> None:
    async with Site() as site:
        page = await site.get("/", await site.login("alice"))
        bundle = next(part for part in page.body.split('"') if part.startswith("/_dash-component-suites"))
        reply = await site.get(bundle)
        assert reply.status == 200
        assert "no-store" not in reply.headers.get("Cache-Control", "")


async def test_a_view_of_the_apps_own_is_left_to_the_app() -> None:
    async with Site() as site:
        reply = await site.get("/me")
        assert reply.status == 200
        assert "Cache-Control" not in reply.headers


async def test_in_debug_mode_what_needs_a_login_is_still_401_and_what_is_missing_404() -> None:
    async with Site(debug=True, dash={"url_base_pathname": "/app/"}) as site:
        assert (await site.get("/secret")).status == 401
        assert (await site.get("/app/_dash-layout")).status == 401
        assert (await site.get("/nowhere")).status == 404
        assert (await site.request("POST", "/me")).status == 405
        assert (await site.get("/app/_dash-layout", await site.login("alice"))).status == 200


@pytest.mark.parametrize("protects", ["auto", True])
async def test_with_a_quartauth_a_login_is_required(protects: Any) -> None:
    async with Site(login_required=protects) as site:
        assert (await site.get("/_dash-layout")).status == 401


async def test_where_no_login_is_required_everybody_sees_everything() -> None:
    async with Site(login_required=False) as site:
        for path in ("/", "/_dash-layout"):
            assert (await site.get(path)).status == 200


async def test_without_a_quartauth_everybody_sees_everything_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Site(auth=None) as site:
        assert (await site.get("/_dash-layout")).status == 200
    assert any("no QuartAuth" in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


async def test_a_required_login_without_a_quartauth_is_an_error_at_start() -> None:
    with pytest.raises(Exception, match="login_required=True") as raised:
        await Site(auth=None, login_required=True).__aenter__()
    assert_configuration_error(raised.value)


async def test_a_missing_secret_key_is_an_error_at_start() -> None:
    with pytest.raises(Exception, match="secret_key") as raised:
        await Site(secret=None).__aenter__()
    assert_configuration_error(raised.value)


def assert_configuration_error(error: BaseException) -> None:
    """Quart's test app wraps what a start-up function raises, as a server's log does."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    assert any(isinstance(one, ConfigurationError) for one in chain) or "ConfigurationError" in repr(error), chain


async def test_a_revoked_user_is_refused_in_the_middle_of_a_page_view(tmp_path: Any) -> None:
    async with Site(broker=database(tmp_path / "store.sqlite3")) as site:
        cookie = await site.login("alice")
        assert (await site.get("/", cookie)).status == 200
        site.backend.revoke(user="alice")
        assert (await site.get("/_dash-layout", cookie)).status == 401
        assert (await site.request("POST", "/_dash-update-component", cookie, json=ECHO)).status == 401


# ------------------------------------------------------------------------------------------- pages, public parts

PAGES_OUTPUT = ".._pages_content.children..._pages_store.data.."


@pytest.fixture
def registry() -> Iterator[None]:
    """Dash's pages belong to the process: here a test has a list of its own."""
    before = dict(dash.page_registry)
    dash.page_registry.clear()
    yield
    dash.page_registry.clear()
    dash.page_registry.update(before)


def paged(*public: str, **options: Any) -> Site:
    """A multi-page site with some public routes; its pages are registered by the test."""
    dash_options = {"use_pages": True, "pages_folder": "", **options.pop("dash", {})}
    site = Site(dash=dash_options, **options)
    site.app.layout = html.Div(
        [dash.page_container, html.Button("go", id="go"), html.Div(id="echo"), dcc.Input(id="text")]
    )
    add_public_routes(site.app, public)
    return site


def page(name: str, path: str | None = None, **options: Any) -> None:
    dash.register_page(name, path=path, layout=html.Div(f"the text of {name}"), title=f"the title of {name}", **options)


def routing(pathname: Any) -> dict[str, Any]:
    ask = [
        {"id": "_pages_location", "property": name, "value": value}
        for name, value in (("pathname", pathname), ("search", ""))
    ]
    outputs = [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}]
    return {"output": PAGES_OUTPUT, "outputs": outputs, "inputs": ask, "changedPropIds": [], "state": []}


async def routed(site: Site, pathname: Any, cookie: str = "", *, prefix: str = "/") -> Reply:
    """What the pages router answers over HTTP."""
    return await site.request("POST", f"{prefix}_dash-update-component", cookie, json=routing(pathname))


async def shown_to_nobody(site: Site, path: str, name: str, *, prefix: str = "/") -> bool:
    """Whether nobody sees a page: its index, and its text through the router; never only one of them."""
    index, answer = await site.get(path), await routed(site, path, prefix=prefix)
    assert (index.status, answer.status) in ((200, 200), (302, 401)), (path, index, answer)
    if index.status == 200:
        assert f"the text of {name}" in answer.body
        assert "the text of" not in index.body
        assert f"the title of {name}" in index.body
    for reply in (index, answer):
        others = set(re.findall(r"the (?:text|title) of (\w+)", reply.body)) - {name}
        assert others == set(), (path, reply.body)
    return index.status == 200


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("order", ["protected first", "public first"])
async def test_two_routes_that_overlap_do_not_open_one_another(order: str) -> None:
    site = paged("/public/<path:rest>")
    both = [
        lambda: page("boards", path_template="/<team>/board"),
        lambda: page("news", "/public/news"),
    ]
    for register in both if order == "protected first" else reversed(both):
        register()
    async with site:
        assert await shown_to_nobody(site, "/public/news", "news")
        for path in ("/public/board", "/public/deep/board", "/public/board/", "/alpha/board", "/public//board"):
            assert not await shown_to_nobody(site, path, "nothing"), path
        cookie = await site.login("alice")
        assert "the text of boards" in (await routed(site, "/public/board", cookie)).body
        assert "the title of boards" in (await site.get("/public/board", cookie)).body


@pytest.mark.usefixtures("registry")
async def test_a_public_path_that_no_page_has_shows_what_is_shown_where_there_is_nothing() -> None:
    site = paged("/public/<path:rest>")
    page("home", "/")
    page("not_found_404")
    async with site:
        assert (await site.get("/public/nowhere")).status == 200
        assert "the text of not_found_404" in (await routed(site, "/public/nowhere")).body
        assert (await routed(site, "/nowhere")).status == 401


@pytest.mark.usefixtures("registry")
async def test_a_page_with_a_template_is_public_as_a_whole_or_not_at_all() -> None:
    site = paged("/user/<name>/public", "/item/<int:number>")
    page("profile", path_template="/user/<who>/public")
    page("item", path_template="/item/<number>")
    page("settings", path_template="/user/<who>/settings")
    page("parts", path_template="/item/<number>/<part>")
    async with site:
        for path in ("/user/zoe/public", "/user/public/public", "/user/zoe/public/"):
            assert await shown_to_nobody(site, path, "profile"), path
        assert await shown_to_nobody(site, "/item/7", "item")
        for path in ("/user/zoe/settings", "/user/zoe/x/public", "/item/7/x", "/item/x", "/item/-7", "/item/7.5"):
            assert not await shown_to_nobody(site, path, "nothing"), path


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("prefix", ["/app/", "/a/b/"])
async def test_below_a_prefix_public_pages_are_public_and_all_others_closed(prefix: str) -> None:
    site = paged(f"{prefix}status", f"{prefix}user/<name>", "/home", dash={"url_base_pathname": prefix})
    page("home", "/")
    page("status", "/status")
    page("profile", path_template="/user/<who>")
    async with site:
        for path in ("status", "user/zoe"):
            index, answer = await site.get(prefix + path), await routed(site, prefix + path, prefix=prefix)
            assert (index.status, answer.status) == (200, 200), path
            assert "the text of" not in index.body
        for path in (prefix, f"{prefix}home", f"{prefix}app/status", f"{prefix}other"):
            assert not await shown_to_nobody(site, path, "nothing", prefix=prefix), path
        for path in ("/status", "/", "status", prefix.rstrip("/"), f"{prefix}/../status", "/user/zoe"):
            assert (await routed(site, path, prefix=prefix)).status == 401, path


@pytest.mark.usefixtures("registry")
async def test_below_a_prefix_no_template_that_matches_the_prefix_gives_its_title_away() -> None:
    site = paged("/app/board", dash={"url_base_pathname": "/app/"})
    page("boards", path_template="/<team>/board")
    page("board", "/board")
    async with site:
        reply = await site.get("/app/board")
        assert reply.status == 200
        assert "the title of boards" not in reply.body


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("strips", [True, False])
async def test_behind_a_proxy_with_a_root_path_public_pages_are_public_and_all_others_closed(strips: bool) -> None:
    site = paged("/status", dash={"requests_pathname_prefix": "/behind/", "routes_pathname_prefix": "/"})
    page("home", "/")
    page("status", "/status")
    options = {} if strips else {"root_path": "/behind"}
    below = "" if strips else "/behind"
    async with site:
        assert (await site.get(f"{below}/status", **options)).status == 200
        reply = await site.get(f"{below}/", **options)
        assert (reply.status, reply.headers["Location"]) == (302, f"{below}/login?next={below}/")

        async def answer(pathname: str) -> Reply:
            return await site.request("POST", f"{below}/_dash-update-component", json=routing(pathname), **options)

        assert "the text of status" in (await answer("/behind/status")).body
        for path in ("/behind/", "/status", "/", "/behind", "/behind/behind/status", "/behindstatus"):
            assert (await answer(path)).status == 401, path


@pytest.mark.usefixtures("registry")
async def test_a_redirect_to_a_page_is_as_public_as_that_page() -> None:
    site = paged("/status", "/user/<name>")
    page("status", "/status", redirect_from=["/old-status"])
    page("home", "/home", redirect_from=["/old-home", "/status-of-home"])
    async with site:
        reply = await site.get("/old-status")
        assert (reply.status, reply.headers["Location"]) == (301, "/status")
        for path in ("/old-home", "/status-of-home"):
            assert (await site.get(path)).headers["Location"] == f"/login?next={path}"
        assert (await site.get("/old-home", await site.login("alice"))).headers["Location"] == "/home"


@pytest.mark.usefixtures("registry")
async def test_nobodys_first_visit_and_alices_are_set_up_alike_as_nobody() -> None:
    def mine() -> Any:
        return html.Div(f"rendered for {current_user.auth_id}")

    site = paged("/status")
    page("status", "/status")
    dash.register_page("mine", path="/", layout=mine)
    async with site:
        cookie = await site.login("alice")
        assert "rendered for alice" in (await routed(site, "/", cookie)).body
        for who, path in (("", "/status"), (await site.login("bob"), "/"), (cookie, "/")):
            assert "rendered for alice" not in (await site.get(path, who)).body
        assert "rendered for None" in (await site.get("/", cookie)).body  # Dash checks callbacks by it
        assert "rendered for" not in (await site.get("/status")).body


async def test_a_public_route_of_an_app_without_pages_shows_its_layout_and_nothing_else() -> None:
    site = Site()
    add_public_routes(site.app, ["/open"])
    async with site:
        assert (await site.get("/open")).status == 200
        assert (await site.get("/_dash-layout")).status == 200
        assert (await site.get("/_dash-dependencies")).json == []
        assert (await site.get("/")).status == 302
        assert (await site.request("POST", "/_dash-update-component", json=ECHO)).status == 401


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ("/login", "/login"),
        ("/login/", "/login/"),
        ("/login/", "/login"),
        ("/login", "/login/"),
        ("/sign/<kind>", "/sign/<kind>"),
        ("/sign/<kind>", "/sign/<how>"),
    ],
)
async def test_a_login_view_of_the_apps_own_that_is_named_public_opens_no_layout(own: str, named: str) -> None:
    site = Site(login_route=None)

    @site.server.get(own)
    async def view(**_: str) -> str:
        return "the login page"

    add_public_routes(site.app, [named])
    async with site:
        assert (await site.get(own.replace("<kind>", "in"))).body == "the login page"
        for path in ("/_dash-layout", "/_dash-dependencies"):
            assert (await site.get(path)).status == 401, path
        assert await site.refused_with() == 4501


@pytest.mark.usefixtures("registry")
async def test_a_login_page_that_is_a_public_dash_page_is_led_to_and_never_to_itself() -> None:
    site = paged("/enter", login_route=None, login_url="/enter")
    page("home", "/")
    page("enter", "/enter")
    async with site:
        assert (await site.get("/x?q=1")).headers["Location"] == "/enter?next=/x%3Fq%3D1"
        reply = await site.get("/enter?next=/x%3Fq%3D1")
        assert (reply.status, "Location" in reply.headers) == (200, False)
        assert (await site.get("/_dash-layout")).status == 200


@pytest.mark.usefixtures("registry")
async def test_a_login_page_that_is_a_protected_dash_page_is_not_led_to() -> None:
    site = paged("/other", login_route=None, login_url="/enter")
    page("enter", "/enter")
    async with site:
        for path in ("/", "/enter", "/enter?next=/"):
            reply = await site.get(path)
            assert (reply.status, "Location" in reply.headers) == (401, False)


@pytest.mark.parametrize(
    ("rule", "open_paths", "closed_paths"),
    [
        ("/a", ["/a", "/a/"], ["/", "/A", "/a/b", "/ab", "/a//b", "/b/../a", "/a\0", "/a\n", "/a ", "/a;b", "/a%2f"]),
        ("/a/", ["/a", "/a/"], ["/a/b", "/"]),
        ("/a/b/c", ["/a/b/c"], ["/a/b", "/a/b/c/d", "/a//b/c", "/a/./b/c"]),
        ("/n/<int:x>", ["/n/1", "/n/007"], ["/n/", "/n/x", "/n/-1", "/n/1.0", "/n/1/2", "/n/1e3"]),
        ("/f/<float:x>", ["/f/1.5"], ["/f/1", "/f/x", "/f/1.5/2"]),
        ("/s/<string(length=2):x>", ["/s/ab"], ["/s/a", "/s/abc", "/s/a/"]),
        ("/e/<any(a, b):x>", ["/e/a", "/e/b"], ["/e/c", "/e/ab", "/e/"]),
        ("/u/<uuid:x>", ["/u/12345678-1234-5678-1234-567812345678"], ["/u/1", "/u/"]),
        ("/p/<path:x>", ["/p/a", "/p/a/b", "/p/../x"], ["/p", "/p/", "/q/a"]),
        ("/user/<name>/public", ["/user/x/public", "/user/é/public"], ["/user//public", "/user/x/y/public", "/user/x"]),
        ("/", ["/"], ["/a", "/index"]),
    ],
)  # fmt: skip
def test_a_public_route_is_what_flask_would_route_there(
    rule: str, open_paths: list[str], closed_paths: list[str]
) -> None:
    routes = PublicRoutes()
    routes.add([rule])
    assert [path for path in open_paths if not routes.match(path)] == []
    assert [path for path in closed_paths if routes.match(path)] == []


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ("/login", "a list"),
        (["login"], "begin with '/'"),
        ([""], "begin with '/'"),
        (["http://here.test/login"], "begin with '/'"),
        ([None], "begin with '/'"),
        ([b"/login"], "begin with '/'"),
        ([7], "begin with '/'"),
        (["/<"], "is no route"),
        (["/<>"], "is no route"),
        (["/<int:>"], "is no route"),
        (["/<nothing:x>"], "is no route"),
        (["/<x>/<x>"], "is no route"),
        (["/<int(wrong=1):x>"], "is no route"),
    ],
    ids=repr,
)
def test_what_is_no_route_is_an_error_that_says_so(routes: Any, message: str) -> None:
    site = Site()
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        add_public_routes(site.app, routes)
    assert not site.backend.public_routes


def test_public_routes_of_another_backend_are_an_error() -> None:
    app = Dash("other", backend="quart", assets_folder="no-assets")
    with pytest.raises(TypeError, match="QuartBackend"):
        add_public_routes(app, ["/login"])


def test_a_route_may_be_named_twice() -> None:
    site = Site()
    add_public_routes(site.app, ["/open"])
    add_public_routes(site.app, ["/open", "/other"])
    assert list(site.backend.public_routes) == ["/open", "/other"]


# -------------------------------------------------------------------------------------- several apps, late servers


async def test_of_two_apps_on_a_server_one_is_open_and_the_other_is_not() -> None:
    server = Quart("two")
    server.secret_key = SECRET
    server.config["QUART_AUTH_COOKIE_SECURE"] = False
    for name, required in (("open", False), ("closed", True)):
        backend = QuartBackend(server=server, broker="memory:", login_required=required)
        app = Dash(name, backend=backend, url_base_pathname=f"/{name}/", websocket_callbacks=True, assets_folder="none")
        app.layout = html.Div([f"the layout of {name}", html.Button(id="go"), html.Div(id="out")])

        @app.callback(Output("out", "children"), Input("go", "n_clicks"))
        async def out(n_clicks: int, name: str = name) -> str:
            return f"{name} {n_clicks}"

    QuartAuth(server)
    body = {**ECHO, "output": "out.children", "outputs": {"id": "out", "property": "children"}}
    async with server.test_app():
        client = server.test_client(use_cookies=False)
        for path in ("", "page", "_dash-layout", "_dash-dependencies"):
            assert (await client.get(f"/open/{path}")).status_code == 200
            reply = await client.get(f"/closed/{path}")
            assert reply.status_code == 401, path
            assert "the layout of closed" not in await reply.get_data(as_text=True)
        for name, status in (("open", 200), ("closed", 401)):
            assert (await client.post(f"/{name}/_dash-update-component", json=body)).status_code == status
        for name, expected in (("open", None), ("closed", 4001)):
            path = f"/{name}/_dash-ws-callback"
            async with InProcessSocket(server, path, headers={"Origin": ORIGIN}) as socket:
                await socket.send('{"type":"heartbeat"}')
                assert await ending(socket, unless="heartbeat_ack") == expected


async def test_an_app_that_meets_its_server_late_is_behind_the_login_too() -> None:
    app = Dash("late", server=False, backend=QuartBackend(broker="memory:"), assets_folder="no-assets")
    app.layout = html.Div("the late layout")
    add_public_routes(app, ["/open"])
    public_callback(Output("asked", "children"), Input("go", "n_clicks"), app=app)(lambda n_clicks: n_clicks)
    server = Quart("late")
    server.secret_key = SECRET
    app.init_app(server)
    QuartAuth(server, cookie_secure=False)

    @server.get("/login/<name>")
    async def login(name: str) -> str:
        login_user(AuthUser(name))
        return name

    async with server.test_app() as running:
        client = running.test_client()
        assert [(await client.get(path)).status_code for path in ("/", "/page", "/open")] == [401, 401, 200]
        body = {**ECHO, "output": "asked.children", "outputs": {"id": "asked", "property": "children"}}
        assert (await client.post("/_dash-update-component", json=body)).status_code == 200
        assert (await client.post("/_dash-update-component", json=ECHO)).status_code == 401
        await client.get("/login/alice")
        assert "the late layout" in await (await client.get("/_dash-layout")).get_data(as_text=True)


@pytest.mark.parametrize("prefix", [None, "/app/", "/a.b/c_d/"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("protects", [False, True])
async def test_assets_are_open_unless_they_are_protected(
    prefix: str | None, late: bool, protects: bool, tmp_path: Path
) -> None:
    (tmp_path / "style.css").write_text("body {}", "utf-8")
    server = Quart("assets")
    server.secret_key = SECRET
    options: dict[str, Any] = {"url_base_pathname": prefix, "assets_folder": str(tmp_path)}
    if late:
        backend = QuartBackend(broker="memory:", protect_assets=protects)
        app = Dash("assets", server=False, backend=backend, **options)
        app.init_app(server)
    else:
        app = Dash("assets", backend=QuartBackend(server=server, broker="memory:", protect_assets=protects), **options)
    app.layout = html.Div()
    QuartAuth(server, cookie_secure=False)

    @server.get("/login/<name>")
    async def login(name: str) -> str:
        login_user(AuthUser(name))
        return name

    path = f"{prefix or '/'}assets/style.css"
    async with server.test_app() as running:
        client = running.test_client()
        for asked in (path, f"{path}?m=1"):
            reply = await client.get(asked)
            assert reply.status_code == (401 if protects else 200)
            assert ("body {}" in await reply.get_data(as_text=True)) != protects
        assert (await client.head(path)).status_code == (401 if protects else 200)
        await client.get("/login/alice")
        reply = await client.get(path)
        assert (reply.status_code, await reply.get_data(as_text=True)) == (200, "body {}")


# ---------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    ("allowed", "host", "known"),
    [
        (["dash.example.org"], "dash.example.org", True),
        (["dash.example.org"], "dash.example.org:8050", True),
        (["dash.example.org"], "DASH.example.ORG", True),
        (["DASH.example.org"], "dash.example.org", True),
        (["dash.example.org"], "xdash.example.org", False),
        (["dash.example.org"], "dash.example.org.evil.test", False),
        (["dash.example.org"], "evil.test", False),
        (["dash.example.org"], "", False),
        ([".example.org"], "example.org", True),
        ([".example.org"], "a.b.example.org", True),
        ([".example.org"], "evil-example.org", False),
        (["[::1]"], "[::1]", True),
        (["[::1]"], "[::1]:8050", True),
        (["[::1]"], "[::2]", False),
        (["127.0.0.1", "localhost"], "localhost:80", True),
        (None, "anything.test", True),
    ],
)
async def test_a_host_is_known_by_the_names_that_are_allowed(allowed: list[str] | None, host: str, known: bool) -> None:
    async with Site(allowed_hosts=allowed) as site:
        cookie = await _cookie_of(site, allowed)
        for path in ("/me", "/", "/_dash-layout", "/nowhere", "/_favicon.ico"):
            reply = await site.get(path, cookie, headers={"Host": host})
            assert (reply.status != 421) == known, path
        code = await site.refused_with(cookie, headers={"Host": host}, origin=f"http://{host}")
        assert code == (None if known else 421)


async def _cookie_of(site: Site, allowed: list[str] | None) -> str:
    """A login under whatever name lets one in."""
    for name in [*(allowed or []), "localhost"]:
        reply = await site.get("/login/alice", headers={"Host": name.lstrip(".")})
        if reply.status == 200:
            return reply.cookie
    raise AssertionError(f"under none of {allowed} the app can be reached")


async def test_two_hosts_are_none() -> None:
    async with Site(allowed_hosts=["localhost"]) as site:
        for order in (("localhost", "evil.test"), ("evil.test", "localhost")):
            headers = Headers([("Host", name) for name in order])
            assert (await site.server.test_client().get("/me", headers=headers)).status_code == 421


async def test_a_websocket_of_the_apps_own_is_not_served_under_a_strange_name_either() -> None:
    site = Site(allowed_hosts=["localhost"])

    @site.server.websocket("/own")
    async def own() -> None:
        await websocket.receive()
        await websocket.send('{"type": "heartbeat_ack"}')

    async with site:
        assert await site.refused_with(path="/own") is None
        assert await site.refused_with(path="/own", headers={"Host": "evil.test"}) == 421


async def test_the_refusal_of_a_strange_host_says_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Site(allowed_hosts=["localhost"], debug=True) as site:
        reply = await site.get("/me", headers={"Host": "evil.test\x85forged line"})
        assert reply.status == 421
        assert "evil" not in json.dumps(str(reply.body))
    lines = [one.getMessage() for one in caplog.records if one.name == "dash_quart_ws.security"]
    assert [line for line in lines if line.startswith("foreign-host")] != []
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "hosts",
    [
        "localhost", [], (), [""], ["*"], ["https://example.org"], ["example.org:80"], ["example.org/x"], [None], [7],
        ["a b"], ["*.example.org"], ["a@b"], ["."],
    ],
    ids=repr,
)  # fmt: skip
def test_allowed_hosts_that_can_never_match_are_an_error(hosts: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        QuartBackend(allowed_hosts=hosts)


def test_two_apps_of_a_server_that_differ_in_what_they_share_are_an_error() -> None:
    shared = ("anonymous_connections", "connections", "connections_per_user", "callbacks", "callback_bytes", "uploads")
    for name, values in (("allowed_hosts", (["a.test"], ["b.test"])), *((name, (1, 2)) for name in shared)):
        server = Quart("two")
        Dash(
            "one", backend=QuartBackend(server=server, broker="memory:", **{name: values[0]}), url_base_pathname="/one/"
        )
        with pytest.raises(ConfigurationError, match=name):
            Dash(
                "two",
                backend=QuartBackend(server=server, broker="memory:", **{name: values[1]}),
                url_base_pathname="/two/",
            )


# ----------------------------------------------------------------------------------------------- safe_next

UNSAFE = [
    "",
    "evil.test",
    "//evil.test",
    "///evil.test",
    "////evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "\\/evil.test",
    "/\\/evil.test",
    "/path\\..\\//evil.test",
    "http://evil.test",
    "https:evil.test",
    "HTTPS://evil.test",
    "http:///evil.test",
    "javascript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,x",
    " //evil.test",
    "\t//evil.test",
    "/\t/evil.test",
    "/\n/evil.test",
    "/\r/evil.test",
    "/\r\nSet-Cookie: a=b",
    "/\x00/evil.test",
    "/path\x7f",
    "/path\x85",
    "?next=//evil.test",
    "#//evil.test",
    "./evil",
    "../evil",
    "@evil.test",
    ":80",
]


@pytest.mark.parametrize("target", UNSAFE, ids=repr)
async def test_a_target_that_leads_elsewhere_is_replaced_by_the_default(target: str) -> None:
    server = Quart("next")
    async with server.test_request_context("/login", query_string={"next": target}):
        assert safe_next() == "/"
        assert safe_next("/home") == "/home"


@pytest.mark.parametrize(
    "target", ["/", "/page", "/page?a=b&c=//d", "/a//b", "/http://x", "/@x", "/résumé", "/%5C/x", "/ x", "/./x"]
)
async def test_a_path_of_this_server_is_taken_as_it_is(target: str) -> None:
    server = Quart("next")
    async with server.test_request_context("/login", query_string={"next": target}):
        assert safe_next() == target


@pytest.mark.parametrize("target", [1, 2])
async def test_only_the_first_of_several_targets_counts(target: int) -> None:
    query = "next=/good&next=//evil.test" if target == 1 else "next=//evil.test&next=/good"
    async with Quart("next").test_request_context(f"/login?{query}"):
        assert safe_next() == ("/good" if target == 1 else "/")


def in_a_browser(base: str, reference: str) -> str:
    """The host that a browser would go to (WHATWG URL): it drops tabs and newlines and reads a backslash as a slash."""
    cleaned = reference.strip("".join(map(chr, range(0x21)))).translate({9: None, 10: None, 13: None})
    return urlsplit(urljoin(base, cleaned.replace("\\", "/"))).netloc


PIECES = st.sampled_from(
    ["/", "\\", "//", "evil.test", "http:", "\t", "\n", "\r", "@", ":", ".", "..", "?", "#", "%2f", " "]
)


@given(st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20))
def test_whatever_is_asked_for_the_browser_stays_on_this_server(target: str) -> None:
    async def ask() -> str:
        async with Quart("next").test_request_context("/login", query_string={"next": target}):
            return safe_next()

    answer = asyncio.run(ask())
    assert answer.startswith("/")
    assert in_a_browser("http://here.test/login", answer) == "here.test"


async def test_a_stream_of_a_hooks_route_ends_with_the_session() -> None:
    sent: list[str] = []

    async def stream() -> Any:
        async def parts() -> AsyncIterator[str]:
            for part in ("one", "two", "three"):
                sent.append(part)
                yield part
                await site.go_on.wait()

        return parts()

    hooks.route(name="stream", methods=("GET",))(stream)
    site = Site()
    hooks._ns["routes"].clear()
    async with site:
        cookie = await site.login("alice")
        async with site.server.test_client(use_cookies=False).request("/stream", headers={"Cookie": cookie}) as client:
            await client.send_complete()
            assert await client.receive() == b"one"
            await site.get("/logout", cookie)
            site.go_on.set()
        assert bytes(client.response_data) == b""  # all that came after the first part
        assert "three" not in sent


async def test_a_callback_that_runs_while_its_session_is_renewed_is_not_ended_by_the_old_expiry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(time.time()).install(monkeypatch)
    site = Site(config={"QUART_AUTH_DURATION": 10})

    @site.app.callback(Output("long", "children"), Input("go", "n_clicks"))
    async def long(_clicks: int) -> str:
        site.entered.set()
        await site.go_on.wait()
        return "done"

    body = {**ECHO, "output": "long.children", "outputs": {"id": "long", "property": "children"}}
    async with site:
        cookie = await site.login("alice")
        asked = asyncio.create_task(site.request("POST", "/_dash-update-component", cookie, json=body))
        await site.entered.wait()
        clock.advance(6)
        await site.get("/renew", cookie)
        clock.advance(6)
        site.go_on.set()
        reply = await asked
        assert (reply.status, reply.json["response"]) == (200, {"long": {"children": "done"}})


NO_OBJECTS = [b"{", b"", b"[1]", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("body", NO_OBJECTS, ids=lambda body: repr(body[:5]))
async def test_an_api_endpoint_runs_nothing_for_a_body_that_is_no_object(body: bytes) -> None:
    ran: list[int] = []
    site = Site()

    @site.app.callback(Output("api", "children"), Input("go", "n_clicks"), api_endpoint="/api/count")
    async def count(clicks: int = 0) -> int:
        ran.append(clicks)
        return clicks

    site.app.setup_apis()
    async with site:
        headers = {"Cookie": await site.login("alice"), "Content-Type": "application/json"}
        client = site.server.test_client(use_cookies=False)
        assert (await client.post("/api/count", data=body, headers=headers)).status_code == 400
        assert ran == []
        for good, clicks in ((b"null", 0), (b"{}", 0), (b'{"clicks": 3}', 3)):
            assert await (await client.post("/api/count", data=good, headers=headers)).get_json() == clicks
