"""A login-protected live dashboard whose websocket ends with the login session: the demo of dash-quart-ws.

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

from dash import ALL, Dash, Input, Output, callback, ctx, dcc, html, no_update
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, abort, redirect, render_template_string, request
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user
from werkzeug.security import check_password_hash, generate_password_hash

from dash_quart_ws import Connection, QuartBackend, Session, current_session, safe_next

USERS = {"alice": ("wonderland", False), "bob": ("builder", False), "admin": ("overseer", True)}
SITES = {"Northwind": "#0ea5e9", "Harbour": "#8b5cf6", "High Ridge": "#f59e0b"}
CAPACITY, TICK, POINTS = 80, 0.5, 150  # megawatts of a site, seconds between updates, points in the chart
AXIS = {"gridcolor": "#80808033", "zeroline": False, "fixedrange": True, "tickformat": "%H:%M:%S"}
CHART = {"xaxis": AXIS, "yaxis": {**AXIS, "tickformat": "d", "range": [0, CAPACITY]}, "font": {"color": "#7c8798"},
         "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02}, "margin": {"l": 30, "r": 10, "t": 10, "b": 30},
         "paper_bgcolor": "#0000", "plot_bgcolor": "#0000"}  # fmt: skip

app = Dash(__name__, backend=QuartBackend(), websocket_callbacks=True, assets_folder="assets/demo", title="Windward")
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
server.config.update(QUART_AUTH_COOKIE_SECURE=https, QUART_AUTH_COOKIE_NAME="__Host-windward" if https else "windward")
QuartAuth(server)  # HttpOnly and SameSite=Lax by default


def sql(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(instance / "users.sqlite")) as database, database:
        return database.execute(statement, values).fetchall()


@server.before_serving
def create_users() -> None:
    sql("CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password TEXT NOT NULL, admin INTEGER NOT NULL)")
    for name, (password, admin) in USERS.items():
        sql("INSERT OR IGNORE INTO users VALUES (?, ?, ?)", name, generate_password_hash(password), admin)


UNKNOWN = [(generate_password_hash(secrets.token_hex()),)]  # an unknown name takes as long as a wrong password


def password_is_right(name: str, password: str) -> bool:
    found = sql("SELECT password FROM users WHERE name = ?", name)
    return check_password_hash((found or UNKNOWN)[0][0], password) and bool(found)


def is_administrator(name: str | None) -> bool:
    return bool(sql("SELECT 1 FROM users WHERE name = ? AND admin", name))


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
<body class="login"><form method="post" class="card"><h1 class="brand">Windward</h1><p>Sign in to watch the wind, live.</p>
  {% if failed %}<p class="error" role="alert">The name or the password is wrong.</p>{% endif %}
  <label>Name <input name="name" required autofocus autocomplete="username" autocapitalize="none"></label>
  <label>Password <input name="password" type="password" required autocomplete="current-password"></label>
  <button>Sign in</button></form></body></html>"""


def card(id: str, title: str, *content: Any) -> html.Section:
    return html.Section([html.H2(title), *content], className="card", id=id)


def layout() -> html.Div:
    """Made for each visitor: what is the administrator's is in nobody else's page."""
    name = current_user.auth_id
    cards = [
        card("now", "Total output", html.Strong("...", id="total")),
        card("time", "Server time, UTC", html.Strong("...", id="clock")),
        card("me", "Signed in as", html.Strong(name), html.Button("Sign out everywhere else", id="elsewhere")),
        card("output", "Output, MW", dcc.Graph(id="chart", config={"displayModeBar": False}, responsive=True)),
        card("load", "Sites", html.Div(id="sites")),
        card("calculator", "Calculator: wind speed, m/s", dcc.Input(id="wind", value="8.5"), html.P(id="power")),
        card("yield", "Report", html.Progress(id="progress", max=100), html.Button("Prepare", id="run"), html.P(id="report")),
    ]  # fmt: skip
    if is_administrator(name):
        cards.append(card("admin", "Who is connected", html.Div(id="people")))
    sign_out = html.Form(html.Button("Sign out", id="sign-out"), action="/logout", method="POST")
    header = html.Header([html.Div("Windward", className="brand"), sign_out])
    return html.Div([header, html.Main(cards), html.Div(id="notice", role="status")])


app.layout = layout


def table(*head: str, rows: list[list[Any]]) -> html.Table:
    body = [html.Tr([html.Td(cell) for cell in row]) for row in rows]
    return html.Table([html.Thead(html.Tr([html.Th(name) for name in head])), html.Tbody(body)])


def measure(site: str, moment: float) -> float:
    """What a site produces: made up, but the same for everybody who looks."""
    phase = 2.1 * list(SITES).index(site)
    waves = 0.6 * math.sin(moment / 17 + phase) + 0.3 * math.sin(moment / 4.1 + phase) + 0.1 * math.sin(moment + phase)
    return CAPACITY * (0.62 - 0.07 * phase + 0.3 * waves)


def figure(now: float) -> dict[str, Any]:
    begin = dt.datetime.fromtimestamp(now - TICK * (POINTS - 1), dt.UTC).replace(tzinfo=None)
    lines = [
        {"name": site, "x0": begin, "dx": TICK * 1000, "line": {"color": color, "width": 2.5}, "mode": "lines",
         "y": [round(measure(site, now - TICK * step), 1) for step in reversed(range(POINTS))]}
        for site, color in SITES.items()
    ]  # fmt: skip
    return {"data": lines, "layout": CHART}


def people(connections: tuple[Connection, ...], own: Session) -> html.Table:
    rows: list[list[Any]] = []
    for one in connections:
        session = one.session.id if one.session else ""
        button = html.Button("End session", id={"type": "end", "session": session, "connection": one.id})
        end = "this browser" if session == own.id else button
        rows.append([one.user, f"{one.since:%H:%M:%S}", one.remote, html.Code(session[:8]), end])
    return table("User", "Since, UTC", "From", "Session", "", rows=rows)


@callback(persistent=True)
async def stream() -> None:
    """Runs while the page is open, and not a moment longer than its session."""
    socket, session = ctx.websocket, current_session()
    if socket is None or session is None:
        return
    administrator = await asyncio.to_thread(is_administrator, session.user)
    shown: tuple[Connection, ...] = ()
    while not socket.is_shutdown:
        now = time.time()
        values = {site: measure(site, now) for site in SITES}
        rows = [[site, f"{mw:.1f} MW", html.Meter(value=f"{mw / CAPACITY:.2f}")] for site, mw in values.items()]
        await socket.set_prop("chart", "figure", figure(now))
        await socket.set_prop("sites", "children", table("Site", "Output", "Load", rows=rows))
        await socket.set_prop("total", "children", f"{sum(values.values()):.1f} MW")
        await socket.set_prop("clock", "children", f"{dt.datetime.now(dt.UTC):%H:%M:%S}")
        if administrator and shown != backend.connections():
            shown = backend.connections()
            await socket.set_prop("people", "children", people(shown, session))
        await asyncio.sleep(TICK)


@callback(Output("power", "children"), Input("wind", "value"))
def power(text: str | None) -> str:  # not async: it runs in a thread, and delays nobody
    try:
        speed = float(text or "")
    except ValueError:
        return "Type a wind speed in m/s, such as 8.5"
    return f"A turbine makes {min(4.2, 0.0026 * speed**3) if 3 <= speed <= 25 else 0:.2f} MW at {speed:g} m/s"


@callback(
    Output("report", "children"),
    Input("run", "n_clicks"),
    running=[(Output("run", "disabled"), True, False)],
    prevent_initial_call=True,
)
async def report(_clicks: int) -> str:
    for percent in range(0, 101, 2):
        if ctx.websocket is not None:
            await ctx.websocket.set_prop("progress", "value", str(percent))
        await asyncio.sleep(0.05)
    return f"{sum(measure(site, time.time()) for site in SITES) * 24:,.0f} MWh a day, if the wind stays"


@callback(Output("notice", "children"), Input("elsewhere", "n_clicks"), prevent_initial_call=True)
async def sign_out_elsewhere(_clicks: int) -> str:
    receipt = await backend.revoke(user=current_user.auth_id, keep=current_session(), reason="signed out elsewhere")
    return f"Signed out everywhere else. Connections closed: {receipt.closed}, in {receipt.slowest_ms:.1f} ms"


END = Input({"type": "end", "session": ALL, "connection": ALL}, "n_clicks")


@callback(Output("notice", "children", allow_duplicate=True), END, prevent_initial_call=True)
async def end_session(clicks: list[int | None]) -> Any:
    if not await asyncio.to_thread(is_administrator, current_user.auth_id):
        abort(403)
    if not ctx.triggered_id or not any(clicks):
        return no_update
    receipt = await backend.revoke(session=ctx.triggered_id["session"], reason="ended by the administrator")
    return f"Session ended. Connections closed: {receipt.closed}, in {receipt.slowest_ms:.1f} ms"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8050)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    config = Config.from_mapping(bind=f"127.0.0.1:{parser.parse_args().port}", errorlog=logging.getLogger("hypercorn"))
    print(f"Open http://{config.bind[0]} and sign in as")  # noqa: T201
    for name, (password, admin) in USERS.items():
        print(f"  {name} with {password}{', the administrator' if admin else ''}", flush=True)  # noqa: T201
    asyncio.run(serve(server, config))  # until SIGINT or SIGTERM
