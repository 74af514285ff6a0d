"""hypercorn with TLS: with HTTP/2, where browsers open a websocket in the connection they have (RFC 8441), or without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import sys
import time
from typing import TYPE_CHECKING

import pytest

from dash_quart_ws._servers import abort, below_tls

from ..raw import CLOSE, TCP_CLOSE, RawSocket, server_side
from ..server import Server, await_for, free_port, result, wait_for
from ..test_servers import MARGIN, OFF, blocked, logout, state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .conftest import Certificate, Visitor

CLOSE_TIMEOUT = 1.0
"""Seconds."""


@contextlib.contextmanager
def serving_tls(
    folder: Path,
    certificate: Certificate,
    app: str,
    *,
    offered: str = '["http/1.1"]',
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """hypercorn with this certificate, which its clients trust. `offered`: the protocols, as its configuration has them."""
    port = free_port()
    config = folder / "hypercorn.toml"
    config.write_text(
        f'bind = ["127.0.0.1:{port}"]\nalpn_protocols = {offered}\n'
        f'certfile = "{certificate.path}"\nkeyfile = "{certificate.key}"\n'
    )
    command = [sys.executable, "-W", "ignore", "-m", "hypercorn", app, "-c", str(config)]
    trusting = ssl.create_default_context(cafile=certificate.path)
    trusting.check_hostname = False  # of raw clients, which name none
    server = Server(command, port, folder / "log", env or {}, trusting)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.mark.browser
@pytest.mark.parametrize(("version", "offered"), [("2", '["h2", "http/1.1"]'), ("1.1", '["http/1.1"]')])
def test_a_browser_streams_over_tls_and_is_led_to_the_login_at_the_sessions_end(
    version: str, offered: str, certificate: Certificate, visitor: Visitor, tmp_path: Path
) -> None:
    with serving_tls(tmp_path, certificate, "tests.apps.embedded:server", offered=offered) as server:
        visitor.comes_and_goes(server.origin, "", f"alice 1 over a websocket in HTTP/{version}")
    assert "dash_quart_ws/" not in server.log, (
        "a traceback of ours; hypercorn has one when it cuts off idle connections"
    )


# -------------------------------------------------------------------------------------- clients that do not hang up


@pytest.fixture(scope="module")
def served(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"OPTIONS": json.dumps({"close_timeout": CLOSE_TIMEOUT})}
    with serving_tls(tmp_path_factory.mktemp("raw"), certificate, "tests.apps.servers:server", env=env) as server:
        yield server


def is_off_the_machine(server: Server, client: RawSocket, since: float) -> None:
    """Wait until the server's end of a connection is gone, which is long before asyncio gives up a client's TLS."""
    deadline = 2 * CLOSE_TIMEOUT + MARGIN
    wait_for(lambda: server_side(server, client.port) in OFF, deadline, "the server's end to be gone")
    assert time.monotonic() - since < deadline


def test_over_tls_a_client_that_ignores_the_close_runs_nothing_and_gets_nothing_more(served: Server) -> None:
    cookie = served.login("alice")
    with RawSocket(served, cookie) as client:
        assert result(client.call("a.children", 1)) == "alice 1"
        client.request("d.children", 1, "flow")
        client.frame()
        logout(served, cookie)
        ended, executed, frames = time.monotonic(), state(served)["started"], []
        with pytest.raises((EOFError, OSError)):  # noqa: PT012 - the loop is what ends
            while time.monotonic() < ended + CLOSE_TIMEOUT + MARGIN:
                client.request("a.children", 2)
                with contextlib.suppress(TimeoutError):
                    while True:
                        frames.append(client.frame(0.02))
        assert [frame.opcode for frame in frames].index(CLOSE) == len(frames) - 1, "nothing comes after the close frame"
        assert frames[-1].close_code == 4001
        is_off_the_machine(served, client, ended)
    assert state(served)["started"] == executed


def test_over_tls_a_client_that_is_silent_after_the_close_is_disconnected(served: Server) -> None:
    cookie = served.login("alice")
    with RawSocket(served, cookie) as client:
        client.call("a.children")
        logout(served, cookie)
        ended = time.monotonic()
        assert client.close_frame(1).close_code == 4001
        is_off_the_machine(served, client, ended)


def test_over_tls_a_client_that_does_not_read_is_reset(served: Server) -> None:
    cookie = served.login("alice")
    with RawSocket(served, cookie, receive_buffer=4096) as client:
        blocked(served, client)
        logout(served, cookie)
        is_off_the_machine(served, client, time.monotonic())


@pytest.mark.parametrize("says", ["a close frame", "the end of its stream", "the end of TLS"])
def test_over_tls_a_client_that_does_not_read_cannot_stay_by_hanging_up_halfway(served: Server, says: str) -> None:
    cookie = served.login("alice")
    with RawSocket(served, cookie, receive_buffer=4096) as client:
        blocked(served, client)
        if says == "a close frame":
            client.send(CLOSE, struct.pack("!H", 1000))
        elif says == "the end of TLS":
            client.socket.settimeout(0.1)
            with contextlib.suppress(OSError):  # it is said, and the answer is not waited for
                client.socket.unwrap()  # type: ignore[attr-defined]
        else:
            client.socket.shutdown(socket.SHUT_WR)
        logout(served, cookie)
        is_off_the_machine(served, client, time.monotonic())


def state_of(client: socket.socket) -> int:
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


async def test_a_tls_transport_that_was_closed_twice_is_aborted_by_the_one_below_it(certificate: Certificate) -> None:
    """As hypercorn closes it. Alone it would stay for as long as asyncio waits for the client's goodbye, half a minute."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key)
    arrived: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    listening = await asyncio.start_server(lambda _, writer: arrived.set_result(writer), "127.0.0.1", 0, ssl=context)
    trusting = ssl.create_default_context(cafile=certificate.path)
    async with listening:
        with socket.create_connection(listening.sockets[0].getsockname()) as connection:
            shaking = asyncio.to_thread(trusting.wrap_socket, connection, server_hostname="localhost")
            with await shaking as client:
                transport = (await arrived).transport
                below = below_tls(transport)
                transport.close()
                transport.close()
                abort(transport)
                assert not below.is_closing(), "the way to it is lost"
                abort(below)
                await await_for(lambda: state_of(client) == TCP_CLOSE, what="the reset")
