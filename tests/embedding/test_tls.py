"""hypercorn with TLS: with HTTP/2, where browsers open a websocket in the connection they have (RFC 8441), or without."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ..server import Server, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Certificate, Visitor


@pytest.mark.browser
@pytest.mark.parametrize(("version", "offered"), [("2", '["h2", "http/1.1"]'), ("1.1", '["http/1.1"]')])
def test_a_browser_streams_over_tls_and_is_led_to_the_login_at_the_sessions_end(
    version: str, offered: str, certificate: Certificate, visitor: Visitor, tmp_path: Path
) -> None:
    port = free_port()
    config = tmp_path / "hypercorn.toml"
    config.write_text(
        f'bind = ["127.0.0.1:{port}"]\nalpn_protocols = {offered}\n'
        f'certfile = "{certificate.path}"\nkeyfile = "{certificate.key}"\n'
    )
    command = [sys.executable, "-W", "ignore", "-m", "hypercorn", "tests.apps.embedded:server", "-c", str(config)]
    server = Server(command, port, tmp_path / "log", {})
    try:
        server.wait_until_ready()
        visitor.comes_and_goes(f"https://127.0.0.1:{port}", "", f"alice 1 over a websocket in HTTP/{version}")
    finally:
        server.stop()
    assert "dash_quart_ws/" not in server.log, (
        "a traceback of ours; hypercorn has one when it cuts off idle connections"
    )
