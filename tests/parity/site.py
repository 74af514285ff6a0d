"""The apps of the table, each over HTTP and over the websocket, on one Quart server: `hypercorn tests.parity.site:server`.

`SITE` chooses the rows. Everybody who is signed in sees every app.
"""

from __future__ import annotations

import collections
import os
from typing import Any

from celery import Celery
from dash import CeleryManager, Dash, DiskcacheManager, hooks
from diskcache import Cache
from quart import Quart, has_request_context
from quart_auth import AuthUser, QuartAuth, login_user

from dash_quart_ws import QuartBackend

from .rows.hooked import hook
from .table import FEATURES

SITE = os.environ.get("SITE", "plain")

server = Quart(__name__)
server.secret_key = "only for tests, and long enough to be one"
server.config.update(QUART_AUTH_COOKIE_SECURE=False)
QuartAuth(server)

ran: dict[str, collections.Counter[tuple[str, str]]] = collections.defaultdict(collections.Counter)
"""Prefix -> (callback, what it came over) -> how often."""


@hooks.custom_data("came_over")
def note(context: Any) -> str:
    """Before each callback: Quart itself knows what it came over."""
    carrier = "http" if has_request_context() else "socket"
    ran[context["path"].partition("_dash-update-component")[0]][_name_of(context), carrier] += 1
    return carrier


def _name_of(context: Any) -> str:
    outputs, inputs = context["outputs_list"], context["inputs_list"]
    return " ".join(_names(outputs)) or f"none by {' '.join(_names(inputs))}"


def _names(listed: Any) -> list[str]:
    if isinstance(listed, dict):
        return [f"{listed['id']}.{listed['property'].partition('@')[0]}"]
    return [name for one in listed for name in _names(one)]


@server.get("/ran/<transport>/<slug>")
async def tell(transport: str, slug: str) -> dict[str, dict[str, int]]:
    """What has run since this was asked last."""
    told: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for (name, carrier), count in ran.pop(f"/{transport}/{slug}/", collections.Counter()).items():
        told[name][carrier] = count
    return told


@server.get("/login/<name>")
async def login(name: str) -> dict[str, str]:
    login_user(AuthUser(name))
    return {"user": name}


def manager() -> Any:
    """What runs the background callbacks of this process's rows."""
    folder = os.environ["JOBS"]
    if SITE == "celery":
        return CeleryManager(celery)
    return DiskcacheManager(Cache(folder)) if SITE == "diskcache" else None


celery = Celery("parity", broker=os.environ.get("REDIS"), backend=os.environ.get("REDIS"))
"""`celery --app tests.parity.site:celery worker` runs the jobs of the site `celery`."""

if SITE == "hooks":
    hook()
for row in FEATURES:
    for transport in ("http", "socket"):
        if row.site != SITE:
            continue
        app = Dash(
            __name__,
            backend=QuartBackend(
                server=server, broker="memory:", connect="always" if transport == "socket" else "when_needed"
            ),
            websocket_callbacks=transport == "socket",
            url_base_pathname=f"/{transport}/{row.slug}/",
            assets_folder="no-assets",
            background_callback_manager=manager(),
            **row.options,
        )
        row.build(app)
        if row.dev_tools is not None:
            app.enable_dev_tools(
                debug=True, dev_tools_hot_reload=False, dev_tools_disable_version_check=True, **row.dev_tools
            )
        app.setup_apis()
