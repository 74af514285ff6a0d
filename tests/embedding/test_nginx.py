"""Behind Debian's nginx, with TLS and below a path, configured as the guide shows it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import websockets

from ..server import ROOT, Reply, Server, call, closed, free_port, result, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Certificate, Visitor

GUIDE = (ROOT / "docs" / "serving.md").read_text("utf-8")
PREFIX = "/team"


class Nginx:
    """nginx in front of a server, and the way through it."""

    def __init__(self, folder: Path, certificate: Certificate, upstream: int) -> None:
        self.port = free_port()
        found = re.search(r"^```nginx\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
        assert found is not None
        shown, keys = found[1], f"ssl_certificate {certificate.path}; ssl_certificate_key {certificate.key};"
        for line, instead in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl; {keys}"),
            ("http://127.0.0.1:8000;", f"http://127.0.0.1:{upstream};"),
        ):
            assert line in shown, line
            shown = shown.replace(line, instead)
        paths = "".join(
            f"{kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off;\nworker_processes 1;\npid {folder / 'pid'};\nerror_log {folder / 'error.log'};\n"
            f"{'user root;' if os.getuid() == 0 else ''}\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{shown}}}\n"
        )
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "nginx is not installed: make nginx"
        self.process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "start.log")]
        )
        self.context = ssl.create_default_context(cafile=str(certificate.path))
        wait_for(self._answers, 30, "nginx to answer")

    def _answers(self) -> bool:
        assert self.process.poll() is None, "nginx has ended"
        with contextlib.suppress(OSError):
            return self.get("/").status > 0
        return False

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def get(self, path: str, cookie: str = "", **headers: str) -> Reply:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.context)
        try:
            connection.request("GET", path, headers={"Cookie": cookie, **headers})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def login(self) -> str:
        return self.get(f"{PREFIX}/login/alice").cookie

    def connect(self, cookie: str, origin: str | None = None, **headers: str) -> Any:
        return websockets.connect(
            f"wss://127.0.0.1:{self.port}{PREFIX}/dash/_dash-ws-callback",
            origin=origin or self.origin,  # type: ignore[arg-type]
            additional_headers={"Cookie": cookie, **headers},
            ssl=self.context,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "hypercorn", "tests.apps.embedded:asgi", "-b", f"127.0.0.1:{port}"]
    log = tmp_path_factory.mktemp("site") / "log"
    running = Server([*command, "--root-path", PREFIX], port, log, {"PREFIX": PREFIX})
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def nginx(site: Server, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    running = Nginx(tmp_path_factory.mktemp("nginx"), certificate, site.port)
    yield running
    running.stop()


@pytest.mark.browser
def test_a_browser_streams_through_it_and_is_led_to_the_login_at_the_sessions_end(
    nginx: Nginx, site: Server, visitor: Visitor
) -> None:
    visitor.comes_and_goes(nginx.origin, PREFIX, "alice 1 over a websocket in HTTP/1.1")
    assert "Traceback" not in site.log


async def test_a_callback_sees_the_client_and_not_the_proxy(nginx: Nginx) -> None:
    async with nginx.connect(nginx.login(), **{"X-Tenant": "acme"}) as socket:
        found = result(await call(socket, "out.children"))
    assert found["remote"] == "127.0.0.1"
    assert found["origin"] == nginx.origin
    assert found["tenant"] == "acme"


async def test_what_a_client_says_about_itself_is_not_believed(nginx: Nginx) -> None:
    lies = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    async with nginx.connect(nginx.login(), **lies) as socket:
        assert result(await call(socket, "out.children"))["remote"] == "127.0.0.1"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_another_origin_is_refused_behind_it_too(nginx: Nginx, scheme: str) -> None:
    foreign = f"http://127.0.0.1:{nginx.port}" if scheme == "http" else "https://evil.example"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await nginx.connect(nginx.login(), origin=foreign)
    assert refused.value.response.status_code == 403


async def test_a_logout_closes_the_socket_through_it_with_its_code(nginx: Nginx) -> None:
    cookie = nginx.login()
    async with nginx.connect(cookie) as socket:
        assert result(await call(socket, "who.children")) == "alice 1 over a websocket in HTTP/1.1"
        nginx.get(f"{PREFIX}/logout", cookie)
        assert await closed(socket) == (4001, "logged out")


def test_pages_name_the_login_and_the_bundles_below_the_path(nginx: Nginx) -> None:
    reply = nginx.get(f"{PREFIX}/dash/a?b=c")
    assert (reply.status, reply.location) == (302, f"{PREFIX}/login?next={PREFIX}/dash/a%3Fb%3Dc")
    page = nginx.get(f"{PREFIX}/dash/", nginx.login()).body.decode()  # type: ignore[union-attr]
    scripts = re.findall(r'<script src="([^"]+)"', page)
    assert scripts
    assert [path for path in scripts if nginx.get(path).status != 200 or not path.startswith(f"{PREFIX}/dash/")] == []
