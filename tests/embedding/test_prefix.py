"""Below a path, as the servers' own `--root-path` has it: hypercorn is sent the whole path, uvicorn what is left of it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
import websockets

from ..server import Server, call, closed, free_port, result

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "/team"


class Site(NamedTuple):
    """A server, and what a proxy in front of it leaves of a path."""

    server: Server
    cut: str

    def sent(self, path: str) -> str:
        return path.removeprefix(self.cut)


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    port = free_port()
    bind = ["-b", f"127.0.0.1:{port}"] if request.param == "hypercorn" else ["--port", str(port)]
    command = [sys.executable, "-W", "ignore", "-m", request.param, "tests.apps.embedded:server", *bind]
    running = Server(
        [*command, "--root-path", PREFIX], port, tmp_path_factory.mktemp("prefix") / "log", {"PREFIX": PREFIX}
    )
    try:
        running.wait_until_ready()
        yield Site(running, "" if request.param == "hypercorn" else PREFIX)
    finally:
        running.stop()


def test_pages_lead_to_the_login_and_back_below_the_path(site: Site) -> None:
    reply = site.server.get(site.sent(f"{PREFIX}/dash/a?b=c"))
    assert (reply.status, reply.location) == (302, f"{PREFIX}/login?next={PREFIX}/dash/a%3Fb%3Dc")


def test_pages_name_scripts_below_the_path_which_are_there(site: Site) -> None:
    cookie = site.server.get(site.sent(f"{PREFIX}/login/alice")).cookie
    page = site.server.get(site.sent(f"{PREFIX}/dash/"), cookie).body.decode()  # type: ignore[union-attr]
    scripts = re.findall(r'<script src="([^"]+)"', page)
    assert any("_dash-quart-ws" in path for path in scripts)
    assert all(path.startswith(f"{PREFIX}/dash/") for path in scripts)
    assert {site.server.get(site.sent(path)).status for path in scripts} == {200}


async def test_callbacks_run_over_the_websocket_until_the_logout_below_the_path(site: Site) -> None:
    cookie = site.server.get(site.sent(f"{PREFIX}/login/alice")).cookie
    url = f"ws://127.0.0.1:{site.server.port}{site.sent(f'{PREFIX}/dash/_dash-ws-callback')}"
    origin = websockets.Origin(site.server.origin)
    async with websockets.connect(url, origin=origin, additional_headers={"Cookie": cookie}) as socket:
        assert result(await call(socket, "who.children")) == "alice 1 over a websocket in HTTP/1.1"
        await site.server.aget(site.sent(f"{PREFIX}/logout"), cookie)
        assert await closed(socket) == (4001, "logged out")
