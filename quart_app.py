"""The demo of dash-quart-ws: a login-protected live dashboard whose websocket ends with the login session.

`python quart_app.py [--port 8050]`, or `hypercorn quart_app:server`. Sign in in two tabs, sign out in one, watch the other.
"""

from __future__ import annotations

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

from dash import ALL, Dash, Input, Output, callback, ctx, dcc, html, no_update
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Response, abort, redirect, render_template_string, request
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user
from werkzeug.security import check_password_hash, generate_password_hash

from dash_quart_ws import Connection, QuartBackend, current_session, safe_next

DEMO_USERS = {"alice": ("wonderland", False), "bob": ("builder", False), "admin": ("overseer", True)}
SITES = {"Northwind": "#0ea5e9", "Harbour": "#8b5cf6", "High Ridge": "#f59e0b"}
CAPACITY, TICK, SHOWN = 80.0, 0.5, 90  # megawatts for each site; seconds between two updates; seconds in the chart

app = Dash(
    __name__, backend=QuartBackend(), websocket_callbacks=True, assets_folder="assets/demo", title="Windward", update_title=""
)
server, backend = app.server, QuartBackend.of(app)
instance = Path(server.instance_path)
database = instance / "users.sqlite"


# ------------------------------------------------------------------------------------------------------- who may?


def kept_secret() -> str:
    """The key that signs the sessions, kept in a file of ours alone: they outlive a restart."""
    instance.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = instance / "secret_key"
    with contextlib.suppress(FileExistsError), open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return path.read_text()


server.secret_key = os.environ.get("DEMO_SECRET_KEY") or kept_secret()
if os.environ.get("DEMO_HTTPS"):  # behind TLS. Over plain http not every browser keeps a Secure cookie, even for 127.0.0.1
    server.config["QUART_AUTH_COOKIE_NAME"] = "__Host-windward"
else:
    server.config.update(QUART_AUTH_COOKIE_NAME="windward", QUART_AUTH_COOKIE_SECURE=False)
QuartAuth(server)  # HttpOnly and SameSite=Lax are its defaults


@server.before_serving
def create_users() -> None:
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password TEXT NOT NULL, admin INTEGER NOT NULL)")
        if not db.execute("SELECT 1 FROM users").fetchone():
            rows = [(name, generate_password_hash(password), admin) for name, (password, admin) in DEMO_USERS.items()]
            db.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)


def find_user(name: str | None) -> tuple[str, bool] | None:
    with contextlib.closing(sqlite3.connect(database)) as db:
        row: tuple[str, bool] | None = db.execute("SELECT password, admin FROM users WHERE name = ?", (name,)).fetchone()
        return row


def is_administrator(name: str | None) -> bool:
    user = find_user(name)
    return user is not None and bool(user[1])


NOBODYS_PASSWORD = generate_password_hash(secrets.token_hex())  # an unknown name takes as long as a wrong password


def password_is_right(name: str, password: str) -> bool:
    user = find_user(name)
    return check_password_hash(user[0] if user else NOBODYS_PASSWORD, password) and user is not None


def require_own_origin() -> None:
    """No other site's form may sign anybody in or out."""
    if request.headers.get("Origin") != request.host_url.rstrip("/"):
        abort(403)


@server.route("/login", methods=["GET", "POST"])
async def login() -> Any:
    name = ""
    if request.method == "POST":
        require_own_origin()
        form = await request.form
        name = form.get("name", "").strip()
        if await asyncio.to_thread(password_is_right, name, form.get("password", "")):
            login_user(AuthUser(name))
            return redirect(safe_next(), 303)
    elif await current_user.is_authenticated:
        return redirect(safe_next())
    return await render_template_string(LOGIN_PAGE, name=name, failed=bool(name)), 403 if name else 200


@server.post("/logout")
async def logout() -> Any:
    require_own_origin()
    logout_user()  # the sockets of this session are closed, in every tab, before the browser has the answer
    return redirect("/login", 303)


LOGIN_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in - Windward</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/assets/demo.css"></head>
<body class="login"><form method="post" class="card"><div class="brand">Windward</div>
  <h1>Sign in</h1><p>to watch the wind farm, live.</p>
  {% if failed %}<p class="error" role="alert">The name or the password is wrong.</p>{% endif %}
  <label>Name <input name="name" value="{{ name }}" required autofocus autocomplete="username"></label>
  <label>Password <input name="password" type="password" required autocomplete="current-password"></label>
  <button>Sign in</button></form></body></html>"""


# ------------------------------------------------------------------------------------------------- what is shown?


def card(title: str, *content: Any, **attributes: Any) -> html.Section:
    return html.Section([html.H2(title), *content], **{"className": "card", **attributes})


def layout() -> html.Div:
    """Made for each visitor; what is the administrator's is not in anybody else's page."""
    name = current_user.auth_id
    badge = [
        html.Span("Connecting", className="connecting"),
        html.Span("Live", className="live"),
        html.A("Signed out. Sign in again", href="/login", className="ended"),
        html.A("Connection lost. Reload", href="/", className="lost"),
    ]
    leave = [
        html.Button("Sign out everywhere else", id="elsewhere", className="quiet"),
        html.Form(html.Button("Sign out", id="sign-out", className="quiet"), action="/logout", method="POST"),
    ]
    header = [html.Div("Windward", className="brand"), html.Div(badge, id="badge", role="status"), html.Div(leave, id="leave")]
    tiles = [
        html.Div([html.Span("Total output"), html.Strong("–", id="total")], className="card tile"),
        html.Div([html.Span("Server time, UTC"), html.Strong("–", id="clock")], className="card tile"),
        html.Div([html.Span("Signed in as"), html.Strong(name, id="name")], className="card tile"),
    ]
    people = card("Who is connected", html.Div(id="people", className="scroll"), html.P(id="ended", role="status"), id="admin")
    cards = [
        card("Output of the last minutes", dcc.Graph(id="chart", figure=figure(), config={"displayModeBar": False})),
        card("Sites", html.Div(sites(time.time()), id="sites", className="scroll")),
        card(
            "Turbine calculator",
            dcc.Input(id="speed", value="8.5", placeholder="Wind speed in m/s", autoComplete="off"),
            html.P(id="power", role="status"),
        ),
        card(
            "Daily report",
            html.Progress(id="progress", value="0", max="100"),
            html.Div([html.Button("Prepare", id="prepare"), html.P(id="report", role="status")], className="row"),
        ),
    ]
    return html.Div(
        [
            html.Header(header),
            html.P(id="notice", role="status"),
            html.Main([*tiles, *cards, *([people] if is_administrator(name) else [])]),
        ]
    )


app.layout = layout


def output(site: str, moment: float) -> float:
    """What a site produces, in megawatts: made up, and the same for everybody who looks at the same moment."""
    phase = list(SITES).index(site) * 2.1
    wave = 0.6 * math.sin(moment / 17 + phase) + 0.25 * math.sin(moment / 4.1 + phase**2) + 0.06 * math.sin(moment * 2.3)
    return CAPACITY * (0.55 + 0.38 * wave) - 4 * phase


def utc(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC).replace(tzinfo=None)


def figure() -> dict[str, Any]:
    moments = [time.time() - TICK * step for step in range(int(SHOWN / TICK), 0, -1)]
    axis = {"gridcolor": "rgba(128,140,160,.18)", "zeroline": False, "fixedrange": True}
    return {
        "data": [
            {"name": site, "x": [*map(utc, moments)], "y": [output(site, moment) for moment in moments], "mode": "lines",
             "line": {"color": color, "width": 2.5}, "hovertemplate": "%{y:.1f} MW"}
            for site, color in SITES.items()
        ],
        "layout": {
            "margin": {"l": 36, "r": 8, "t": 8, "b": 28}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "inherit", "color": "#7c8798"}, "hovermode": "x unified", "xaxis": axis,
            "yaxis": {**axis, "range": [0, CAPACITY], "ticksuffix": " "}, "legend": {"orientation": "h", "y": 1.12},
        },
    }  # fmt: skip


def sites(moment: float) -> html.Table:
    rows = []
    for site, color in SITES.items():
        now, change = output(site, moment), output(site, moment) - output(site, moment - 10)
        bar = html.Div(html.Div(style={"width": f"{now / CAPACITY:.1%}", "background": color}), className="bar")
        trend = html.Td(f"{'▲' if change > 0 else '▼'} {abs(change):.1f}", className="up" if change > 0 else "down")
        rows.append(html.Tr([html.Td(site), html.Td(f"{now:.1f} MW"), trend, html.Td(bar)]))
    return html.Table([html.Thead(html.Tr([html.Th(head) for head in ("Site", "Now", "10 s", "Load")])), html.Tbody(rows)])


# ---------------------------------------------------------------------------------------------------- what is live?


@callback(persistent=True)
async def stream() -> None:
    """Runs for as long as the page is open, and not a moment longer than its session."""
    socket = ctx.websocket
    if socket is None:
        return
    await socket.set_prop("chart", "figure", figure())
    while not socket.is_shutdown:
        now = time.time()
        values = [output(site, now) for site in SITES]
        points = {"x": [[utc(now)]] * len(SITES), "y": [[value] for value in values]}
        await socket.set_prop("chart", "extendData", [points, [*range(len(SITES))], int(SHOWN / TICK)])
        await socket.set_prop("sites", "children", sites(now))
        await socket.set_prop("total", "children", f"{sum(values):.1f} MW")
        await socket.set_prop("clock", "children", f"{utc(now):%H:%M:%S}")
        await asyncio.sleep(TICK)


@callback(
    Output("report", "children"),
    Input("prepare", "n_clicks"),
    running=[(Output("prepare", "disabled"), True, False)],
    prevent_initial_call=True,
)
async def report(_clicks: int) -> str:
    for percent in range(0, 101, 2):
        if ctx.websocket is not None:
            await ctx.websocket.set_prop("progress", "value", str(percent))
        await asyncio.sleep(0.05)
    return f"Ready: {sum(output(site, time.time()) for site in SITES) * 24:,.0f} MWh a day at this rate."


@callback(Output("power", "children"), Input("speed", "value"))
def power(speed: str | None) -> str:
    """Not async: it runs in a thread, and holds nobody up."""
    try:
        wind = float(speed or "")
    except ValueError:
        return "Type a wind speed in m/s, such as 8.5."
    megawatts = min(4.2, 0.4 * 0.5 * 1.225 * 10_600 * wind**3 / 1e6) if 3 <= wind <= 25 else 0.0
    return f"At {wind:g} m/s a turbine makes {megawatts:.2f} MW."
