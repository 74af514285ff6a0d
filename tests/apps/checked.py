"""Servers for `python -m dash_quart_ws check`: one that is ready for production, and what else a name may lead to."""

from __future__ import annotations

from types import SimpleNamespace

from dash import Dash, html
from hypercorn.middleware import ProxyFixMiddleware
from quart import Quart
from quart_auth import QuartAuth

from dash_quart_ws import QuartBackend

print("said while it is imported")

KEY = "5d41402abc4b2a76b9719d911017c592ae2f7b1c9d0e4f6a8b3c5d7e9f1a2b4c"


def make(name: str, **options: object) -> Dash:
    app = Dash(name, backend=QuartBackend(**options), assets_folder="no-assets")
    app.server.secret_key = KEY
    app.layout = html.Div()
    return app


app = make("ready", absolute_timeout=12 * 3600, idle_timeout=1800)
server = app.server
QuartAuth(server, cookie_name="__Host-session", duration=7 * 24 * 3600)
wrapped = ProxyFixMiddleware(server, mode="legacy", trusted_hops=1)
sites = SimpleNamespace(inner=SimpleNamespace(server=server))

without_login = make("without login").server
plain = Quart("plain")
on_flask = Dash("on flask", assets_folder="no-assets")
unfinished = Dash("unfinished", server=False, backend=QuartBackend, assets_folder="no-assets")
text = "no server at all"


def create() -> Quart:
    return server


def fail() -> Quart:
    raise LookupError("the factory's own trouble")
