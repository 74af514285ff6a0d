"""hypercorn's own TLS: with HTTP/2, where a browser opens its websocket in the connection it has (RFC 8441), and without."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ..server import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Certificate, Visitor

pytestmark = pytest.mark.browser

ALPN = {"2": '["h2", "http/1.1"]', "1.1": '["http/1.1"]'}


@pytest.fixture(params=sorted(ALPN))
def site(request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate) -> Iterator[tuple[Server, str]]:
    """A server, and the version of HTTP that browsers speak with it."""
    port = free_port()
    config = tmp_path / "hypercorn.toml"
    config.write_text(
        f'bind = ["127.0.0.1:{port}"]\ncertfile = "{certificate.path}"\nkeyfile = "{certificate.key}"\n'
        f"alpn_protocols = {ALPN[request.param]}\n"
    )
    command = [sys.executable, "-W", "ignore", "-m", "hypercorn", "tests.apps.embedded:server", "-c", str(config)]
    running = Server(command, port, tmp_path / "log", {})
    try:
        running.wait_until_ready()
        yield running, request.param
    finally:
        running.stop()


def test_a_browser_streams_over_tls_and_is_led_to_the_login_at_the_sessions_end(
    site: tuple[Server, str], visitor: Visitor
) -> None:
    server, version = site
    visitor.comes_and_goes(f"https://127.0.0.1:{server.port}", "", f"alice 1 over a websocket in HTTP/{version}")
    assert "Traceback" not in server.log
