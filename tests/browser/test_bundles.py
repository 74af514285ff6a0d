"""What a browser is given for the name that a page asks for, and for every other name."""

from __future__ import annotations

import asyncio
import gc
import gzip
import hashlib
import importlib
import logging
import os
import re
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from dash import Dash, html
from quart import Quart, Response

from dash_quart_ws import QuartBackend
from dash_quart_ws.browser import bundles
from dash_quart_ws.browser.bundles import Bundle, Bundles
from tests.server import ROOT, await_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 6_000
"""Bytes of the script, compressed: every page waits for it."""

BRIDGE = bundles.script()
FILE = bundles.script_file()
BUILT = ROOT / "dash_quart_ws" / "browser" / "static" / "bridge.js"

app = Quart(__name__)
app.add_url_rule("/app/_dash-quart-ws/<file>", view_func=bundles.serve)


async def get(file: str = FILE, method: str = "GET", **headers: str):
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return await app.test_client().open(f"/app/_dash-quart-ws/{file}", method=method, headers=spelled)


async def test_the_script_is_the_built_one_and_may_be_kept_for_good() -> None:
    answer = await get()
    assert answer.status_code == 200
    assert await answer.get_data() == BUILT.read_bytes()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in answer.headers


def test_its_name_changes_with_it() -> None:
    assert FILE.split(".") == ["bridge", hashlib.sha256(BUILT.read_bytes()).hexdigest()[:16], "js"]


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.8", "*"])
async def test_it_is_compressed_for_whoever_takes_gzip(accepted: str) -> None:
    answer = await get(Accept_Encoding=accepted)
    body = await answer.get_data()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Length"] == str(len(body))
    assert gzip.decompress(body) == BUILT.read_bytes()


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip;q=0, *"])
async def test_it_is_not_compressed_for_others(accepted: str) -> None:
    answer = await get(Accept_Encoding=accepted)
    assert "Content-Encoding" not in answer.headers
    assert await answer.get_data() == BUILT.read_bytes()


async def test_the_compressed_script_has_an_etag_of_its_own() -> None:
    plain, compressed = await get(), await get(Accept_Encoding="gzip")
    assert plain.headers["ETag"] != compressed.headers["ETag"]
    assert not plain.headers["ETag"].startswith("W/")


@pytest.mark.parametrize("accepted", ["", "gzip"])
@pytest.mark.parametrize("spelling", ["{}", "W/{}", '"other", {}', "*"])
async def test_who_has_it_is_told_so_without_the_body(accepted: str, spelling: str) -> None:
    first = await get(Accept_Encoding=accepted)
    again = await get(Accept_Encoding=accepted, If_None_Match=spelling.format(first.headers["ETag"]))
    assert again.status_code == 304
    assert await again.get_data() == b""
    for name in ("ETag", "Cache-Control", "Vary"):
        assert again.headers[name] == first.headers[name]
    assert "Content-Encoding" not in again.headers


async def test_who_has_another_one_gets_it() -> None:
    answer = await get(If_None_Match='"0123456789abcdef"')
    assert (answer.status_code, await answer.get_data()) == (200, BUILT.read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "bridge.js",
        "bridge.0123456789abcdef.js",
        f"bridge.{BRIDGE.digest.upper()}.js",
        f"{FILE}.map",
        f"Bridge.{BRIDGE.digest}.js",
        "..%2F__init__.py",
        "%2e%2e%2fbundles.py",
        "bridge.%00.js",
    ],
)
async def test_every_other_name_is_unknown_and_nobody_remembers_that(name: str) -> None:
    answer = await get(name)
    assert answer.status_code == 404
    assert BRIDGE.body not in await answer.get_data()
    assert answer.headers.get("Cache-Control", "no-store") == "no-store"


async def test_a_script_of_another_release_is_unknown_for_now_only() -> None:
    answer = await get("bridge.0123456789abcdef.js", If_None_Match="*")
    assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("accepted", ["", "gzip"])
async def test_in_a_worker_it_may_connect_to_websockets_and_its_own_site_and_load_nothing(accepted: str) -> None:
    """What rules in a shared worker is the policy of its script's own response."""
    first = await get(Accept_Encoding=accepted)
    again = await get(Accept_Encoding=accepted, If_None_Match=first.headers["ETag"])
    for answer in (first, again):
        assert answer.headers.getlist("Content-Security-Policy") == ["default-src 'none'; connect-src 'self' ws: wss:"]


async def test_a_policy_that_the_app_gives_to_every_response_is_left_as_it_is() -> None:
    strict = Quart(__name__)
    strict.add_url_rule("/app/_dash-quart-ws/<file>", view_func=bundles.serve)

    @strict.after_request
    async def policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    answer = await strict.test_client().get(f"/app/_dash-quart-ws/{FILE}")
    assert answer.headers.getlist("Content-Security-Policy") == ["default-src 'self'"]


async def test_head_says_what_get_would() -> None:
    got, headed = await get(), await get(method="HEAD")
    assert (headed.status_code, headed.headers["ETag"]) == (200, got.headers["ETag"])


def test_the_script_is_small() -> None:
    assert len(BRIDGE.gzipped) <= LIMIT


async def test_pages_with_dashs_own_worker_have_a_smaller_script() -> None:
    plain = bundles.script(bundles.PLAIN)
    answer = await get(bundles.script_file(bundles.PLAIN))
    assert (answer.status_code, await answer.get_data()) == (200, plain.body)
    assert len(plain.body) < len(BRIDGE.body) / 2
    assert b"WebSocket(" not in plain.body
    assert b"dash-ws-worker" in plain.body


async def test_the_script_for_the_dev_tools_is_there_only_where_these_are() -> None:
    file = bundles.script_file(bundles.DEVTOOLS)
    assert (await get(file)).status_code == 404
    async with app.test_request_context("/"):
        answer = await bundles.serve(file, devtools=True)
        assert (answer.status_code, await answer.get_data()) == (200, bundles.script(bundles.DEVTOOLS).body)


def test_the_script_needs_no_permission_to_evaluate_text() -> None:
    """Under a Content-Security-Policy without 'unsafe-eval' and with Trusted Types."""
    text = BRIDGE.body.decode("utf-8")
    for word in ("eval(", "Function(", "innerHTML", "insertAdjacentHTML", "document.write", 'setAttribute("style'):
        assert word not in text


# ------------------------------------------------------------------------------------------------ what is kept

SCRIPT = b"const answer = 42;\n" * 500
NOISE = hashlib.shake_256(b"as good as an image").digest(10_000)


class Disk:
    """Where bundles are read from: counts, and can be slow or broken."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.threads: set[str] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.broken = False

    def reader(self, file: str, body: bytes = SCRIPT) -> Callable[[], Response]:
        def read() -> Response:
            self.reads.append(file)
            self.threads.add(threading.current_thread().name)
            assert self.may_go_on.wait(10)
            if self.broken:
                raise FileNotFoundError(file)
            return Response(body, content_type="text/javascript", headers={"Cache-Control": "public"})

        return read


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def test_a_bundle_is_read_once_and_in_a_thread(disk: Disk) -> None:
    kept = Bundles()
    first = await kept.get("a", 1, disk.reader("a"))
    assert await kept.get("a", 1, disk.reader("a")) is first
    assert (disk.reads, first.body) == (["a"], SCRIPT)
    assert threading.current_thread().name not in disk.threads


async def test_all_who_ask_at_once_share_one_read(disk: Disk) -> None:
    kept = Bundles()
    disk.may_go_on.clear()
    asking = [asyncio.create_task(kept.get("a", 1, disk.reader("a"))) for _ in range(20)]
    await await_for(lambda: disk.reads)
    disk.may_go_on.set()
    assert len({id(bundle) for bundle in await asyncio.gather(*asking)}) == 1
    assert disk.reads == ["a"]


async def test_who_goes_away_takes_the_bundle_from_nobody(disk: Disk) -> None:
    kept = Bundles()
    disk.may_go_on.clear()
    first, second = (asyncio.create_task(kept.get("a", 1, disk.reader("a"))) for _ in range(2))
    await await_for(lambda: disk.reads)
    first.cancel()
    await asyncio.wait({first})
    disk.may_go_on.set()
    assert (await second).body == SCRIPT
    assert first.cancelled()
    assert disk.reads == ["a"]


async def test_another_version_of_a_file_takes_the_place_of_the_one_before(disk: Disk) -> None:
    kept = Bundles()
    await kept.get("a", 1, disk.reader("a"))
    assert (await kept.get("a", 2, disk.reader("a", b"new"))).body == b"new"
    assert (await kept.get("a", 2, disk.reader("a", b"not read"))).body == b"new"


async def test_who_asks_for_a_new_version_does_not_get_the_old_one_that_is_being_read(disk: Disk) -> None:
    kept = Bundles()
    disk.may_go_on.clear()
    old = asyncio.create_task(kept.get("a", 1, disk.reader("a", b"old")))
    await await_for(lambda: disk.reads)
    new = asyncio.create_task(kept.get("a", 2, disk.reader("a", b"new")))
    await await_for(lambda: len(disk.reads) == 2)
    disk.may_go_on.set()
    assert [bundle.body for bundle in await asyncio.gather(old, new)] == [b"old", b"new"]


async def test_a_read_that_fails_fails_for_all_who_wait_and_is_tried_again(disk: Disk) -> None:
    kept = Bundles()
    disk.broken = True
    disk.may_go_on.clear()
    asking = [asyncio.create_task(kept.get("a", 1, disk.reader("a"))) for _ in range(3)]
    await await_for(lambda: disk.reads)
    disk.may_go_on.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(failure) for failure in failures] == [FileNotFoundError] * 3
    disk.broken = False
    assert (await kept.get("a", 1, disk.reader("a"))).body == SCRIPT
    assert disk.reads == ["a", "a"]


async def test_a_read_that_fails_when_all_who_waited_have_gone_is_no_mystery_in_the_log() -> None:
    may_fail, troubles = threading.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: troubles.append(what["message"]))

    def read() -> Response:
        assert may_fail.wait(10)
        raise FileNotFoundError

    kept = Bundles()
    waiting = asyncio.create_task(kept.get("file", 1, read))
    await asyncio.sleep(0)
    (reading,) = (task for task in asyncio.all_tasks() if task.get_name() == "bundle")
    waiting.cancel()
    await asyncio.wait({waiting})
    may_fail.set()
    await asyncio.wait({reading})
    del waiting, reading
    gc.collect()
    assert troubles == []


async def test_beyond_the_bound_the_least_recently_used_bundle_goes(disk: Disk) -> None:
    size = Bundle.of(SCRIPT, ()).size
    kept = Bundles(limit=size * 2)
    for file in ("a", "b", "a", "c", "a", "b"):  # b makes room for c
        await kept.get(file, 1, disk.reader(file))
    assert disk.reads == ["a", "b", "c", "b"]


async def test_a_bundle_beyond_the_bound_is_sent_and_takes_no_others_place(disk: Disk) -> None:
    kept = Bundles(limit=Bundle.of(SCRIPT, ()).size)
    await kept.get("a", 1, disk.reader("a"))
    assert (await kept.get("large", 1, disk.reader("large", NOISE * 2))).body == NOISE * 2
    await kept.get("a", 1, disk.reader("a"))
    assert disk.reads == ["a", "large"]


async def test_a_file_that_changes_again_and_again_takes_no_more_room(disk: Disk) -> None:
    kept = Bundles(limit=Bundle.of(SCRIPT, ()).size * 2)
    await kept.get("a", 1, disk.reader("a"))
    for version in range(10):
        await kept.get("b", version, disk.reader("b"))
    await kept.get("a", 1, disk.reader("a"))
    assert disk.reads.count("a") == 1


def test_what_compresses_badly_is_not_compressed() -> None:
    assert Bundle.of(NOISE, ()).gzipped is None
    assert Bundle.of(b"", ()).gzipped is None
    assert gzip.decompress(Bundle.of(SCRIPT, ()).gzipped or b"") == SCRIPT


# ------------------------------------------------------------------------------------------------ Dash's bundles

PACKAGE = "pretty_components"
PLAIN = f"/_dash-component-suites/{PACKAGE}/pretty.js"
NAMED = f"/_dash-component-suites/{PACKAGE}/pretty.v1_0m1700000000.js"
ICON = f"/_dash-component-suites/{PACKAGE}/icon.png"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a component package."""
    found = tmp_path / PACKAGE
    found.mkdir()
    found.joinpath("__init__.py").write_text("__version__ = '1.0'")
    found.joinpath("pretty.js").write_bytes(SCRIPT)
    found.joinpath("icon.png").write_bytes(NOISE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(PACKAGE)
    yield found
    del sys.modules[PACKAGE]


def dash_app(*files: str, backend: object = None, **options: object) -> Dash:
    """An app that has registered these files of the package."""
    made = Dash(__name__, backend=backend or QuartBackend(broker="memory:", login_required=False), **options)
    made.layout = html.Div("here")
    made.logger.setLevel(logging.DEBUG)
    for file in files:
        made.scripts.append_script({"namespace": PACKAGE, "relative_package_path": file})
    return made


async def ask(app: Dash, path: str, method: str = "GET", **headers: str):
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return await app.server.test_client().open(path, method=method, headers=spelled)


async def with_page(app: Dash) -> Dash:
    """The same, after its first page: Dash registers what may be served when it writes one."""
    assert (await ask(app, app.config.routes_pathname_prefix)).status_code == 200
    return app


@pytest.fixture
async def site(folder: Path) -> Dash:
    return await with_page(dash_app("pretty.js", "icon.png"))


@pytest.fixture
def reads(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many files of the package Dash has read: it logs each."""
    caplog.set_level(logging.DEBUG)
    return lambda: sum(f"package: {PACKAGE}" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("path", [PLAIN, NAMED, ICON])
async def test_a_component_bundle_has_the_headers_that_dash_gives_it(site: Dash, path: str) -> None:
    stock = await with_page(dash_app("pretty.js", "icon.png", backend="quart"))
    theirs, ours = await ask(stock, path), await ask(site, path)
    assert ours.status_code == theirs.status_code == 200
    assert await ours.get_data() == await theirs.get_data()
    for name in ("Content-Type", "Cache-Control", "Content-Length"):
        assert ours.headers.getlist(name) == theirs.headers.getlist(name), name


@pytest.mark.parametrize("path", [PLAIN, NAMED])
async def test_a_component_bundle_is_compressed_for_whoever_takes_gzip(site: Dash, path: str) -> None:
    answer = await ask(site, path, Accept_Encoding="gzip, deflate, br, zstd")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(await answer.get_data()) == SCRIPT


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip;q=0, *"])
async def test_a_component_bundle_is_not_compressed_for_others(site: Dash, accepted: str) -> None:
    await ask(site, NAMED, Accept_Encoding="gzip")
    answer = await ask(site, NAMED, Accept_Encoding=accepted)
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert await answer.get_data() == SCRIPT


async def test_an_image_of_a_component_is_sent_as_it_is(site: Dash) -> None:
    answer = await ask(site, ICON, Accept_Encoding="gzip")
    assert "Content-Encoding" not in answer.headers
    assert "Vary" not in answer.headers
    assert (answer.headers["Content-Type"], await answer.get_data()) == ("image/png", NOISE)


@pytest.mark.parametrize("accepted", ["", "gzip"])
@pytest.mark.parametrize("path", [PLAIN, NAMED, ICON, "/_favicon.ico"])
async def test_who_has_a_component_bundle_or_the_icon_is_told_so_without_the_body(
    site: Dash, path: str, accepted: str
) -> None:
    first = await ask(site, path, Accept_Encoding=accepted)
    for method in ("GET", "HEAD"):
        again = await ask(site, path, method, Accept_Encoding=accepted, If_None_Match=first.headers["ETag"])
        assert (again.status_code, await again.get_data()) == (304, b"")
        for name in ("ETag", "Cache-Control", "Vary", "Content-Type"):
            assert again.headers.getlist(name) == first.headers.getlist(name), name


async def test_a_name_without_a_version_is_not_kept_for_good_whichever_was_asked_for_first(site: Dash) -> None:
    assert "Cache-Control" in (await ask(site, NAMED)).headers
    assert "Cache-Control" not in (await ask(site, PLAIN)).headers
    assert "Cache-Control" in (await ask(site, NAMED)).headers


async def test_the_compressed_spelling_is_not_taken_for_the_plain_one(site: Dash) -> None:
    """A cache that holds the compressed bundle must not be told that it is what an older client asked for."""
    compressed = await ask(site, NAMED, Accept_Encoding="gzip")
    answer = await ask(site, NAMED, If_None_Match=compressed.headers["ETag"])
    assert (answer.status_code, await answer.get_data()) == (200, SCRIPT)


async def test_a_request_for_a_range_gets_the_whole_bundle(site: Dash) -> None:
    answer = await ask(site, NAMED, Range="bytes=0-99")
    assert (answer.status_code, await answer.get_data()) == (200, SCRIPT)


async def test_a_bundle_is_read_once_whatever_version_its_name_claims(site: Dash, reads: Callable[[], int]) -> None:
    for number in range(50):
        answer = await ask(site, NAMED.replace("1700000000", str(number)), Accept_Encoding="gzip")
        assert answer.status_code == 200
    assert reads() == 1


@pytest.mark.parametrize("path", [PLAIN, NAMED])
async def test_a_component_file_that_has_changed_is_seen(site: Dash, folder: Path, path: str) -> None:
    before = await ask(site, path)
    folder.joinpath("pretty.js").write_bytes(SCRIPT.replace(b"42", b"43"))
    os.utime(folder / "pretty.js", (1_700_000_001, 1_700_000_001))
    after = await ask(site, path, If_None_Match=before.headers["ETag"])
    assert after.status_code == 200
    assert b"43" in await after.get_data()


@pytest.mark.parametrize(
    "name", ["none.js", "pretty.py", "__init__.py", "..%2f__init__.py", "pretty.js.map", "pretty%00.js"]
)
async def test_what_no_component_has_registered_is_unknown(site: Dash, folder: Path, name: str) -> None:
    folder.joinpath("pretty.py").write_text("secret = 1")
    answer = await ask(site, f"/_dash-component-suites/{PACKAGE}/{name}", Accept_Encoding="gzip", If_None_Match="*")
    assert answer.status_code == 404
    assert "ETag" not in answer.headers
    assert "Cache-Control" not in answer.headers


async def test_a_registered_file_that_is_gone_is_unknown_until_it_is_back(site: Dash, folder: Path) -> None:
    assert (await ask(site, NAMED)).status_code == 200
    folder.joinpath("pretty.js").unlink()
    assert (await ask(site, NAMED)).status_code == 404
    folder.joinpath("pretty.js").write_bytes(b"back")
    assert await (await ask(site, NAMED)).get_data() == b"back"


async def test_two_apps_on_one_server_share_what_is_kept_and_not_what_they_may_serve(
    folder: Path, reads: Callable[[], int]
) -> None:
    server = Quart(__name__)

    async def app_at(prefix: str, *files: str) -> Dash:
        backend = QuartBackend(server=server, broker="memory:", login_required=False)
        return dash_app(*files, backend=backend, url_base_pathname=prefix)

    one, two = await app_at("/one/", "pretty.js", "icon.png"), await app_at("/two/", "pretty.js")
    for app in (one, two):
        await with_page(app)
        assert (await ask(app, app.config.routes_pathname_prefix[:-1] + NAMED)).status_code == 200
    assert reads() == 1
    assert (await ask(one, f"/one{ICON}")).status_code == 200
    assert (await ask(two, f"/two{ICON}")).status_code == 404


async def test_every_script_that_a_page_names_is_compressed_and_has_an_etag(site: Dash) -> None:
    page = await (await ask(site, "/")).get_data(as_text=True)
    named = re.findall(r'(?:src|href)="(/_[^"]+)"', page)
    assert len(named) > 10
    for path in named:
        answer = await ask(site, path, Accept_Encoding="gzip")
        assert answer.status_code == 200
        assert "ETag" in answer.headers, path
        assert path.endswith(".png") or answer.headers["Content-Encoding"] == "gzip", path


@pytest.mark.parametrize("path", ["/", "/_dash-layout", "/_dash-dependencies"])
async def test_pages_and_what_is_made_for_a_visitor_are_not_compressed(site: Dash, path: str) -> None:
    """Compressed, their length would tell about a secret beside text that an attacker chose (BREACH)."""
    assert "Content-Encoding" not in (await ask(site, path, Accept_Encoding="gzip")).headers
