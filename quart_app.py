"""A live dashboard behind a login, whose websocket ends with the login session: the demo of dash-quart-ws.

Run `python quart_app.py`, or `hypercorn quart_app:server`. Sign in, open a second tab, sign out in one, watch the other.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import logging
import math
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

import dash
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, callback, ctx, dcc, html, no_update
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, abort, redirect, render_template_string, request
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user
from werkzeug.security import check_password_hash, generate_password_hash

from dash_quart_ws import QuartBackend, Receipt, add_public_routes, current_session, list_groups, safe_next
from dash_quart_ws import protected_callback, public_callback

USERS = {"alice": ("wonderland", False), "bob": ("builder", False), "admin": ("overseer", True)}
ADMINISTRATORS = "administrators"
SITES = {"Northwind": "#0ea5e9", "Harbour": "#8b5cf6", "Highridge": "#f59e0b"}
CAPACITY, TICK, POINTS = 80, 0.5, 150  # megawatts of a site, seconds between updates, points in the chart
SHIFT, WEEK = 8 * 3600, 7 * 24 * 3600  # seconds
AXIS = {"gridcolor": "#80808033", "zeroline": False, "fixedrange": True, "tickformat": "%H:%M:%S"}
CHART = {"xaxis": AXIS, "yaxis": {**AXIS, "tickformat": "d", "range": [0, CAPACITY]}, "font": {"color": "#7c8798"},
         "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02}, "margin": {"l": 30, "r": 10, "t": 10, "b": 30},
         "paper_bgcolor": "#0000", "plot_bgcolor": "#0000", "showlegend": True}  # fmt: skip


def sql(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(instance / "users.sqlite")) as database, database:
        return database.execute(statement, values).fetchall()


def groups_of(user: str) -> list[str]:  # not async: it is asked in a thread
    return [ADMINISTRATORS] if sql("SELECT 1 FROM users WHERE name = ? AND admin", user) else []


hosts = os.environ.get("DEMO_HOSTS")  # the names that this server goes by, such as "windward.example.org,localhost"
options = QuartBackend(
    list_groups=groups_of,
    idle_timeout=SHIFT,  # watching is not doing: a page that is left open all night has to sign in again
    absolute_timeout=WEEK,
    allowed_hosts=hosts.split(",") if hosts else None,
)
app = Dash(__name__, backend=options, websocket_callbacks=True, assets_folder="assets/demo", title="Windward",
           use_pages=True, pages_folder="", update_title="")  # fmt: skip
app.config.suppress_callback_exceptions = True  # the layout depends on the visitor: Dash cannot check it beforehand
backend = QuartBackend.of(app)
server: Quart = app.server
instance = Path(server.instance_path)


def kept_secret() -> str:
    """The key that signs the sessions. They outlive a restart because it is kept, in a file that only we can read."""
    instance.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        file = os.open(instance / "secret_key", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(file, secrets.token_hex(32).encode())
        os.close(file)
    return (instance / "secret_key").read_text()


server.secret_key = os.environ.get("DEMO_SECRET_KEY") or kept_secret()
# Set it behind TLS, where it belongs: over plain http, browsers may refuse a cookie that is Secure or named __Host-.
https = bool(os.environ.get("DEMO_HTTPS"))
server.config.update(QUART_AUTH_COOKIE_SECURE=https, QUART_AUTH_COOKIE_NAME="__Host-windward" if https else "windward",
                     QUART_AUTH_DURATION=WEEK)  # fmt: skip
QuartAuth(server)  # HttpOnly and SameSite=Lax by default

# ------------------------------------------------------------------------------------------------ users, in and out


@server.before_serving
def create_users() -> None:
    sql("CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password TEXT NOT NULL, admin INTEGER NOT NULL)")
    for name, (password, admin) in USERS.items():
        sql("INSERT OR IGNORE INTO users VALUES (?, ?, ?)", name, generate_password_hash(password), admin)


UNKNOWN = [(generate_password_hash(secrets.token_hex()),)]  # an unknown name takes as long as a wrong password


def password_is_right(name: str, password: str) -> bool:
    found = sql("SELECT password FROM users WHERE name = ?", name)
    return check_password_hash((found or UNKNOWN)[0][0], password) and bool(found)


def require_own_origin() -> None:
    """Nobody is signed in or out by a form on another site."""
    if request.headers.get("Origin") != request.host_url.rstrip("/"):
        abort(403)


@server.route("/login", methods=["GET", "POST"])
async def login() -> Any:
    if request.method == "POST":
        require_own_origin()
        form = await request.form
        if await asyncio.to_thread(password_is_right, form.get("name", ""), form.get("password", "")):
            login_user(AuthUser(form["name"]))
            return redirect(safe_next(), 303)
    failed = request.method == "POST"
    return await render_template_string(LOGIN_PAGE, failed=failed), 403 if failed else 200


@server.post("/logout")
async def logout() -> Any:
    require_own_origin()
    logout_user()  # this closes the session's sockets, in every tab, before the browser has the answer
    return redirect("/login", 303)


LOGIN_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in - Windward</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/assets/demo.css"></head>
<body class="login"><main><form method="post" class="card"><h1 class="brand">Windward</h1>
  <p>Sign in to watch the wind, live.</p>
  {% if failed %}<p class="error" role="alert">The name or the password is wrong.</p>{% endif %}
  <label>Name <input name="name" required autofocus autocomplete="username" autocapitalize="none"></label>
  <label>Password <input name="password" type="password" required autocomplete="current-password"></label>
  <button>Sign in</button></form><p><a href="/status">Status, for everybody</a></p></main></body></html>"""

# ------------------------------------------------------------------------------------------------- what is on a page


def links(path: str | None = None) -> list[html.Li]:
    """The navigation, made for who looks at it."""
    pages = {"/": "Dashboard", "/account": "Account", "/admin": "Administration", "/status": "Status"}
    hidden = {"/account", "/admin"} if current_session() is None else {"/admin"} - {f"/{g}" for g in ()}
    here: Any = {"aria-current": "page"}
    return [html.Li(dcc.Link(text, href=href), **(here if href == path else {})) for href, text in pages.items()]
