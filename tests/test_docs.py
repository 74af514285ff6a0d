"""The README and the guide: what they show runs, what they name exists, and what exists is named."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from dash import _callback
from quart_auth import AuthUser, login_user, logout_user

import dash_quart_ws
from dash_quart_ws import CloseCode, Config, Connection, QuartBackend, Receipt, Session
from dash_quart_ws._dash import QuartDashServer
from dash_quart_ws.brokers.base import Target, TargetKind

from .asgi import Closed, InProcessSocket
from .brokers.contract import record
from .brokers.crew import Crew, outcome
from .brokers.redis_server import RedisServer
from .server import ROOT, SOCKET_PATH, await_for, request_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from types import ModuleType

    from quart import Quart

README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CHANGELOG.md", *GUIDE]
ORIGIN = {"Origin": "http://localhost", "Host": "localhost"}

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAME = re.compile(r"`([^`]+)`")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path) -> list[str]:
    """A page's Python blocks, padded so that a traceback has the page's own line numbers."""
    text = page.read_text("utf-8")
    return ["\n" * text[: match.start(1)].count("\n") + match[1] for match in FENCE.finditer(text)]


def code_of(block: str, page: Path) -> Any:
    return compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def section(page: Path, title: str) -> str:
    """The text below one heading."""
    _, _, rest = page.read_text("utf-8").partition(f"\n## {title}\n")
    assert rest, f"{page.name} has no section {title!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of a table, without its head."""
    lines = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if not set(line[0]) <= {"-", " ", "|"}][1:]


def module_from(source: str, folder: Path, name: str) -> ModuleType:
    """A module of its own, as somebody makes it who pastes an example into a file."""
    path = folder / f"{name}.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own_callbacks() -> Iterator[None]:
    """Dash's global `@callback`s belong to whichever app is set up first: keep ours from others, and theirs from ours."""
    stores: tuple[Any, ...] = (
        _callback.GLOBAL_CALLBACK_LIST, _callback.GLOBAL_CALLBACK_MAP, _callback.GLOBAL_INLINE_SCRIPTS,
    )  # fmt: skip
    kept = [store.copy() for store in stores]
    modules = set(sys.modules)
    for store in stores:
        store.clear()
    yield
    for store, content in zip(stores, kept, strict=True):
        store.clear()
        store.update(content) if isinstance(store, dict) else store.extend(content)
    for name in [name for name in sys.modules if name.startswith("example_") and name not in modules]:
        del sys.modules[name]


@contextlib.asynccontextmanager
async def websocket(client: Any) -> AsyncIterator[Any]:
    """A websocket as Dash's worker opens it, from a page of this server."""
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookie_jar)
    async with InProcessSocket(client.app, SOCKET_PATH, headers={**ORIGIN, "Cookie": cookies}) as socket:
        yield socket


async def messages_until(socket: Any, type: str) -> list[dict[str, Any]]:
    """What arrives, message by message, up to the first of a type."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not any(message["type"] == type for message in found):
            received = json.loads(await socket.receive())
            found += received if isinstance(received, list) else [received]
    return found


def run_request(output: str = "result.children") -> dict[str, Any]:
    """The message that a click on the examples' button makes."""
    message: dict[str, Any] = json.loads(request_message(output).replace('"go', '"run'))
    return message


def without_secure_cookies(server: Quart) -> None:
    """The test client speaks plain http."""
    for extension in server.extensions["QUART_AUTH"]:
        extension.cookie_secure = False


# ---------------------------------------------------------------------------------------------- the examples run


async def test_the_readmes_example_runs_over_http_and_websocket_and_is_pushed_to_until_the_logout(
    own_callbacks: None, tmp_path: Path
) -> None:
    example = module_from("\n".join(blocks(README)[:2]), tmp_path, "example_readme")
    server = example.server
    without_secure_cookies(server)

    @server.post("/login/<name>")
    async def login(name: str) -> dict[str, str]:
        login_user(AuthUser(name))
        return {}

    @server.post("/logout")
    async def logout() -> dict[str, str]:
        logout_user()
        return {}

    async with server.test_app() as running:
        alice, nobody = running.test_client(), running.test_client()
        request = run_request()
        assert (await nobody.post("/_dash-update-component", json=request["payload"])).status_code == 401
        await alice.post("/login/alice")
        reply = await alice.post("/_dash-update-component", json=request["payload"])
        assert (await reply.get_json())["response"] == {"result": {"children": "done"}}

        async with websocket(alice) as socket:
            await socket.send_json(request)
            progress, done = await messages_until(socket, "callback_response")
            assert progress["payload"] == {"componentId": "bar", "props": {"value": "50"}}
            assert done["payload"]["data"]["response"] == {"result": {"children": "done"}}

            await example.end_of_trading()
            (push,) = await messages_until(socket, "set_props")
            assert push["payload"] == {"componentId": "result", "props": {"children": "Market closed"}}

            await alice.post("/logout")
            with pytest.raises(Closed):
                await messages_until(socket, "callback_response")
        assert example.backend.connections() == ()
        assert (await alice.get("/_dash-layout")).status_code == 401


async def test_the_guides_complete_app_signs_in_and_out(own_callbacks: None, tmp_path: Path) -> None:
    example = module_from(blocks(ROOT / "docs" / "index.md")[0], tmp_path, "example_guide")
    async with example.server.test_app() as running:
        client = running.test_client()
        page = await client.get("/?tab=2")
        assert (page.status_code, page.location) == (302, "/login?next=/%3Ftab%3D2")
        form = {"user": "alice", "password": "wrong"}
        assert (await client.post(page.location, form=form)).location.startswith("/login")
        assert (await client.get("/_dash-layout")).status_code == 401
        form["password"] = "wonderland"
        reply = await client.post("/login", form=form, query_string=dict(parse_qsl("next=/%3Ftab%3D2")))
        assert (reply.status_code, reply.location) == (303, "/?tab=2")

        async with websocket(client) as socket:
            await socket.send_json(run_request())
            *_, done = await messages_until(socket, "callback_response")
            assert done["payload"]["data"]["response"] == {"result": {"children": "done for alice"}}
            assert (await client.post("/logout")).location == "/login"
            with pytest.raises(Closed):
                await messages_until(socket, "callback_response")
        assert (await client.get("/_dash-layout")).status_code == 401


@pytest.mark.parametrize("page", [README, *GUIDE], ids=lambda page: page.name)
async def test_every_python_block_of_a_page_runs_in_the_order_in_which_it_is_read(
    page: Path, own_callbacks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = module_from("\n".join(blocks(README)[:2]), tmp_path, "example_start")
    names = vars(module_from("", tmp_path, "example_page"))
    if page != README:
        names.update({name: value for name, value in vars(start).items() if not name.startswith("__")})
        names["current_session"] = dash_quart_ws.current_session
    for block in blocks(page):
        running = eval(code_of(block, page), names)
        if inspect.isawaitable(running):
            async with start.server.app_context():
                await running


@pages
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page):
        code_of(block, page)


def test_the_readme_and_every_page_of_the_guide_but_none_else_is_read_here() -> None:
    assert {page.name for page in GUIDE} == {
        "asvs.md", "bridge.md", "callbacks.md", "errors.md", "guard.md", "index.md", "parity.md", "push.md", "security.md",
        "serving.md", "sessions.md", "workers.md",
    }  # fmt: skip
    assert len(blocks(README)) == 3


def test_the_configuration_errors_message_in_the_guide_is_the_real_one() -> None:
    with pytest.raises(dash_quart_ws.ConfigurationError) as caught:
        QuartBackend(close_timout=5)
    assert f"print(error)  # {caught.value}\n" in (ROOT / "docs" / "errors.md").read_text("utf-8")


# ------------------------------------------------------------------------------------- the tables tell the truth


def test_the_table_of_options_has_every_option_with_its_default_and_no_other() -> None:
    documented = {name.strip("`"): ast.literal_eval(default.strip("`")) for name, default, _ in rows(options_table())}
    assert documented == {field.name: field.default for field in dataclasses.fields(Config)}


def options_table() -> str:
    return section(README, "Options")


def test_the_options_are_documented_in_the_order_of_the_code() -> None:
    documented = [name.strip("`") for name, *_ in rows(options_table())]
    assert documented == [field.name for field in dataclasses.fields(Config)]


def test_the_table_of_close_codes_has_every_code_and_no_other() -> None:
    documented = {name.strip("`"): int(code) for code, name, _ in rows(section(README, "Close codes"))}
    assert documented == {code.name: code.value for code in CloseCode}


def test_the_close_codes_that_are_said_to_be_unused_are_those_that_the_package_never_uses() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "dash_quart_ws").rglob("*.py"))
    unused = {code.name for code in CloseCode if f"CloseCode.{code.name}" not in source}
    table = rows(section(README, "Close codes"))
    assert {name.strip("`") for _, name, meaning in table if meaning == "not used yet"} == unused


def test_the_table_of_loggers_has_every_logger_and_no_other() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "dash_quart_ws").rglob("*.py"))
    documented = {name.strip("`") for name, _ in rows(section(README, "Logging"))}
    assert documented == set(re.findall(r'getLogger\("(dash_quart_ws[^"]*)"\)', source))


def test_the_table_of_security_events_has_every_event_and_no_other() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "dash_quart_ws").rglob("*.py"))
    events = re.findall(r'security\.(?:info|warning|error|log)\((?:\s*logging\.[^"]*,)?\s*"([a-z-]+)', source)
    assert len(events) == len(re.findall(r"security\.(?:info|warning|error|log)\(", source))
    table = rows(section(ROOT / "docs" / "security.md", "Records"))
    documented = [name for names, _ in table for name in NAME.findall(names)]
    assert sorted(documented) == sorted(set(events))


def test_every_requirement_that_is_met_names_tests_that_there_are() -> None:
    table = rows((ROOT / "docs" / "asvs.md").read_text("utf-8"))
    assert len(table) > 50
    for id, _level, _asks, here, shown in table:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", shown)
        assert named or not here.startswith("yes"), id
        for path, test in named:
            assert f"def {test}(" in (ROOT / path).read_text("utf-8") if test else (ROOT / path).exists(), (
                id,
                path,
                test,
            )


def test_the_changelog_gives_a_reason_for_every_runtime_dependency_and_no_other() -> None:
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    required = re.search(r"^install_requires =\n((?: +.+\n)+)", setup, re.MULTILINE)
    assert required is not None
    needed = {line.split()[0] for line in required[1].splitlines()}
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    _, _, listed = changelog.partition("### Dependencies\n")
    lines = [line for line in listed.partition("\n### ")[0].splitlines() if line.startswith("- ")]
    assert {match[1] for line in lines if (match := re.match(r"- `([^`]+)`: \w+", line))} == needed
    assert len(lines) == len(needed)


def test_the_changelog_names_the_wire_protocol_that_the_server_speaks() -> None:
    assert f"`{dash_quart_ws.wire.close.SUBPROTOCOL}`" in (ROOT / "CHANGELOG.md").read_text("utf-8")


# ------------------------------------------------------------------------------------------ nothing is left out


def documented_names() -> set[str]:
    """Every identifier that stands in code, in a block or inline, in the README or the guide."""
    found: set[str] = set()
    for page in [README, *GUIDE]:
        text = page.read_text("utf-8")
        code = [*FENCE.findall(text), *NAME.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))]
        found.update(name for piece in code for name in re.findall(r"[A-Za-z_]\w*", piece))
    return found


def public(cls: type[Any]) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(dash_quart_ws.__all__))
def test_every_public_name_is_documented(name: str) -> None:
    assert name in documented_names()


APP_METHODS = sorted(name for name in public(QuartBackend) if not hasattr(QuartDashServer, name))
NOT_FOR_APPS = {"first_contact", "pages_need_login", "pool", "register_callback_api_routes", "socket_path"}
"""Methods that Dash or the package calls."""


@pytest.mark.parametrize("name", sorted(set(APP_METHODS) - NOT_FOR_APPS))
def test_every_method_of_the_backend_that_an_app_calls_is_documented(name: str) -> None:
    assert name in documented_names()


@pytest.mark.parametrize(
    ("cls", "page"),
    [(Session, "sessions.md"), (Receipt, "sessions.md"), (Connection, "push.md")],
    ids=["session", "receipt", "connection"],
)
def test_the_table_of_a_public_class_names_attributes_that_it_has(cls: type[Any], page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    table = text.partition(f"`{cls.__name__}` shows:")[2] or text.partition(f"| `{cls.__name__}` | is |")[2]
    names = re.findall(r"^\| `(\w+)` \|", table.partition("\n## ")[0], re.MULTILINE)
    known = public(cls)
    if not dataclasses.is_dataclass(cls):
        known |= set(re.findall(r"self\.(\w+)", inspect.getsource(cls.__init__)))
    assert len(names) >= 4
    assert set(names) <= known


# ---------------------------------------------------------------------------------------- others understand it, too


@pytest.mark.parametrize(
    "page", [README, *(ROOT / "docs" / name for name in ("serving.md", "workers.md"))], ids=lambda page: page.name
)
def test_nginx_takes_what_is_shown_for_it(page: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=localhost", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    shown = re.findall(r"^```nginx\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert shown
    for block in shown:
        part = "\n".join(
            re.findall(r"# (map .*)", block)
        )  # of a server that is not shown whole, and what goes beside it
        server = block if "server {" in block else f"{part}\nserver {{ listen 8000;\n{block}\n}}"
        tls = f"ssl_certificate {certificate};\nssl_certificate_key {key};\n"
        (tmp_path / "nginx.conf").write_text(
            f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{tls}{server}}}\n"
        )
        command = ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


async def test_the_user_of_redis_that_the_guide_shows_may_do_what_workers_and_publishers_need(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^ACL SETUSER .*$", (ROOT / "docs" / "workers.md").read_text("utf-8"), re.MULTILINE)
    redis = RedisServer(tmp_path)
    await asyncio.to_thread(redis.start)
    with redis.look() as client:
        client.execute_command(*shown.split())
        client.acl_setuser("default", enabled=False)
    place = f"127.0.0.1:{redis.port}/0"
    crew = Crew(f"redis://dashboard:secret@{place}?prefix=dashboard")
    try:
        a, b = crew.join(), crew.join()
        topic = Target(TargetKind.TOPIC, "prices")
        await outcome(a.broker.subscribe(topic))
        await outcome(a.broker.record(record("s")))
        a.broker.enter("c", {})
        await a.broker.position()
        b.ears.answer = {"connections": 1, "slowest_ms": 0.5}
        async with dash_quart_ws.Publisher(f"redis://dashboard:secret@{place}?prefix=dashboard") as publisher:
            await publisher.set_props("a", {"b": 1}, topic="prices")
            assert (await publisher.revoke(user="mallory")).closed == 1
            assert (await publisher.close_connections(all=True)).closed == 1
            assert [one.id for one in await publisher.sessions(all=True)] == ["s"]
            assert await publisher.connections() == ()  # what was entered is no connection's
        await await_for(lambda: a.ears.pushes)
        await a.knows("mallory")
        assert await outcome(a.broker.claim("something"))
        elsewhere = dash_quart_ws.Publisher(f"redis://dashboard:secret@{place}?prefix=other", timeout=0.2)
        with pytest.raises(dash_quart_ws.DashQuartWsError, match="perm"):
            await asyncio.to_thread(elsewhere.__enter__)
    finally:
        await crew.end()
        redis.kill()


# ------------------------------------------------------------------------------------------------ links resolve


@pages
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            heads = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


def test_every_page_and_picture_of_the_guide_is_linked_from_somewhere() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text("utf-8"))
        if "://" not in link
    }
    assert {path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".svg")} <= linked
