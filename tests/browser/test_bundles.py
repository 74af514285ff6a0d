"""What a browser is given for the name that a page asks for, and for every other name."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from quart import Quart, Response

from dash_quart_ws.browser import bundles
from tests.server import ROOT

LIMIT = 6_000
"""Bytes of the script, compressed: every page waits for it."""

BRIDGE = bundles.bridge()
BUILT = ROOT / "dash_quart_ws" / "browser" / "static" / "bridge.js"

app = Quart(__name__)
app.add_url_rule("/app/_dash-quart-ws/<file>", view_func=bundles.serve)


async def get(file: str = BRIDGE.file_name, method: str = "GET", **headers: str):
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
    assert BRIDGE.file_name == f"bridge.{hashlib.sha256(BUILT.read_bytes()).hexdigest()[:16]}.js"


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
        f"{BRIDGE.file_name}.map",
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

    answer = await strict.test_client().get(f"/app/_dash-quart-ws/{BRIDGE.file_name}")
    assert answer.headers.getlist("Content-Security-Policy") == ["default-src 'self'"]


async def test_head_says_what_get_would() -> None:
    got, headed = await get(), await get(method="HEAD")
    assert (headed.status_code, headed.headers["ETag"]) == (200, got.headers["ETag"])


def test_the_script_is_small() -> None:
    assert len(BRIDGE.gzipped) <= LIMIT


def test_the_script_needs_no_permission_to_evaluate_text() -> None:
    """Under a Content-Security-Policy without 'unsafe-eval' and with Trusted Types."""
    text = BRIDGE.body.decode("utf-8")
    for word in ("eval(", "Function(", "innerHTML", "insertAdjacentHTML", "document.write", 'setAttribute("style'):
        assert word not in text
