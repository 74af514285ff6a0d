"""A live dashboard behind a login, whose websocket ends with the login session: the demo of dash-quart-ws.

Run `python quart_app.py`, or `hypercorn quart_app:server`. Sign in, open a second tab, sign out in one, watch the other.
`--workers 4` serves with four processes, and a Redis between them.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import logging
import math
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dash
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, callback, ctx, dcc, html, no_update
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, abort, redirect, render_template_string, request
from quart_auth import AuthUser, QuartAuth, current_user, login_user, logout_user
from werkzeug.security import check_password_hash, generate_password_hash

from dash_quart_ws import (
    BrokerError,
    Connection,
    KnownSession,
    QuartBackend,
    Receipt,
    Session,
    add_public_routes,
    current_session,
    list_groups,
    protected_callback,
    public_callback,
    safe_next,
)

USERS = {"alice": ("wonderland", False), "bob": ("builder", False), "admin": ("overseer", True)}
ADMINISTRATORS, ANNOUNCEMENTS = "administrators", "announcements"
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


def may_follow(user: str | None, topic: str) -> bool:
    return user is not None and topic == ANNOUNCEMENTS


hosts = os.environ.get("DEMO_HOSTS")  # the names that this server goes by, such as "windward.example.org,localhost"
options = QuartBackend(
    list_groups=groups_of,
    authorize_topic=may_follow,
    idle_timeout=SHIFT,  # watching is not doing: a page that is left open all night has to sign in again
    absolute_timeout=WEEK,
    allowed_hosts=hosts.split(",") if hosts else None,
    connection_status=False,  # the badge in the header says it
)
# Not __name__: run as a script, the server would keep its files in whatever is the current folder.
app = Dash("quart_app", backend=options, websocket_callbacks=True, assets_folder="assets/demo", title="Windward",
           use_pages=True, pages_folder="", update_title="")  # fmt: skip
app.config.suppress_callback_exceptions = True  # the layout depends on the visitor: Dash cannot check it beforehand
backend = QuartBackend.of(app)
server: Quart = app.server
instance = Path(server.instance_path)


def kept_secret() -> str:
    """The key that signs the sessions. They outlive a restart because it is kept, in a file that only we can read."""
    instance.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = instance / "secret_key"
    if not kept.exists():
        with tempfile.NamedTemporaryFile("w", dir=instance) as file, contextlib.suppress(FileExistsError):
            file.write(secrets.token_hex(32))
            file.flush()
            os.link(file.name, kept)  # whole, or not at all: other workers may be doing the same
    return kept.read_text()


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

# ------------------------------------------------------------------------------------------------------------ pages


def card(id: str, title: Any, *content: Any) -> html.Section:
    return html.Section([html.H2(title), *content], className="card", id=id)


def page(title: str, *cards: Any) -> html.Div:
    return html.Div([html.H1(title), html.Div(cards, className="cards")], className="page")


def table(*head: str, rows: list[list[Any]]) -> html.Table:
    labels: list[Any] = [{"data-label": name} for name in head]  # where the screen is narrow, each cell has its own
    body = [html.Tr([html.Td(cell, **label) for cell, label in zip(row, labels, strict=True)]) for row in rows]
    return html.Table([html.Thead(html.Tr([html.Th(name, scope="col") for name in head])), html.Tbody(body)])


def links(path: str | None = None) -> list[html.Li]:
    """The navigation, made for who looks at it."""
    here: Any = {"aria-current": "page"}
    pages = {"/": "Dashboard", "/status": "Status"}
    if current_session():
        pages["/account"] = "Account"
    if ADMINISTRATORS in (list_groups() or ()):
        pages["/admin"] = "Admin"
    return [html.Li(dcc.Link(text, href=href), **(here if href == path else {})) for href, text in pages.items()]


def layout() -> html.Div:
    """What is around every page. Made for each visitor: what is the administrators' is in nobody else's page."""
    sign_in = html.A("Sign in", href="/login?next=/status", className="button")
    sign_out = html.Form(html.Button("Sign out", id="sign-out"), action="/logout", method="POST")
    live = html.Span("Connecting", id="badge", role="status")
    nav = html.Nav(html.Ul(links(), id="links"))
    brand = dcc.Link("Windward", href="/", className="brand")
    header = html.Header([brand, nav, live, sign_out if current_session() else sign_in])
    stores = [dcc.Store(id=id) for id in ("connected", "news", "visit")]
    unseen = [dcc.Store(id="tab", data=secrets.token_hex(8)), *stores]
    notice = html.Div(id="notice", role="status")
    return html.Div([dcc.Location(id="url"), header, html.Main(dash.page_container), notice, *unseen])


def chart() -> dcc.Graph:
    return dcc.Graph(id="chart", config={"displayModeBar": False}, responsive=True)


def dashboard(**_query: str) -> html.Div:  # Dash gives the query of the URL to every page's function
    rows: list[list[Any]] = []
    for one in SITES:
        load: Any = {"id": f"{one}-load", "aria-label": f"Load of {one}"}
        rows.append([dcc.Link(one, href=f"/sites/{one}"), html.Span(id=f"{one}-now"), html.Meter(**load)])
    label, bar = (
        html.Label("Calculator: wind speed, m/s", htmlFor="wind"),
        html.Progress(id="progress", max=100, title="Report"),
    )
    return page(
        "Dashboard",
        card("now", "Total output", html.Strong("...", id="total")),
        card("time", "Server time, UTC", html.Strong("...", id="clock")),
        card("me", "Signed in as", html.Strong(current_user.auth_id), dcc.Link("Where else?", href="/account")),
        card("output", "Output, MW", chart()),
        card("sites", "Sites", table("Site", "Output", "Load", rows=rows)),
        card("calculator", label, dcc.Input(id="wind", value="8.5"), html.P(id="power")),
        card("yield", "Report", bar, html.Button("Prepare", id="run"), html.P(id="report")),
    )  # fmt: skip


def site(name: str = "", **_query: str) -> html.Div:
    if name not in SITES:
        return page("There is no such site", *(dcc.Link(one, href=f"/sites/{one}", className="card") for one in SITES))
    this_hour = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - dt.timedelta(hours=back) for back in range(1, 9)]
    rows = [[f"{hour:%H:%M}", f"{mean(name, hour.timestamp()):.1f} MW"] for hour in hours]
    return page(
        name,
        card("now", "Output", html.Strong("...", id="site-now")),
        card("time", "Capacity", html.Strong(f"{CAPACITY} MW")),
        card("output", "Output, MW", chart()),
        card("history", "Mean of the hours before, UTC", table("Hour", "Output", rows=rows)),
    )


def account(**_query: str) -> html.Div:
    everywhere = html.Button("Sign out everywhere else", id="elsewhere")
    return page("Account", card("sessions", "Where you are signed in", html.Div(own_sessions(), id="mine"), everywhere))


def admin(**_query: str) -> html.Div:
    """An empty page: a protected callback fills it, for those who may see that."""
    return page("Administration", html.Div(id="people"))


def status(**_query: str) -> html.Div:
    return page(
        "Status",
        card("now", "Total output", html.Strong("...", id="total")),
        card("time", "Server time, UTC", html.Strong("...", id="clock")),
        card("more", "For everybody", html.P("This page needs no login. What each site produces does.")),
    )


app.layout = layout
register_page: Any = dash.register_page
register_page("dashboard", path="/", title="Windward", layout=dashboard)
register_page("site", path_template="/sites/<name>", title="Site - Windward", layout=site)
register_page("account", path="/account", title="Account - Windward", layout=account)
register_page("admin", path="/admin", title="Administration - Windward", layout=admin)
register_page("status", path="/status", title="Status - Windward", layout=status)
add_public_routes(app, ["/status"])  # all else needs a login


@public_callback(Output("links", "children"), Output("notice", "children"), Input("url", "pathname"))
async def navigate(path: str) -> tuple[list[html.Li], str]:
    return links(path), ""


SCRIPTS = "windward"  # in assets/demo/page.js
BADGE = (Output("badge", "children"), Output("badge", "className"))
dash.clientside_callback(ClientsideFunction(SCRIPTS, "badge"), *BADGE, Input("news", "data"))
TOTAL = (Output("total", "children"), Output("clock", "children"))
dash.clientside_callback(ClientsideFunction(SCRIPTS, "total"), *TOTAL, Input("news", "data"))
dash.clientside_callback(ClientsideFunction(SCRIPTS, "scroll"), Input("history", "id"))

# ------------------------------------------------------------------------------------------------------ what is live


def measure(site: str, moment: float) -> float:
    """What a site produces: made up, but the same for everybody who looks."""
    phase = 1.5 * list(SITES).index(site)
    waves = (0.6, 17), (0.3, 4.1), (0.1, 1), (0.3, 9000)  # how high, and how many seconds long
    return CAPACITY * (0.58 - 0.08 * phase + 0.28 * sum(high * math.sin(moment / long + phase) for high, long in waves))


def mean(site: str, hour: float) -> float:
    return sum(measure(site, hour + minute * 61) for minute in range(60)) / 60


def figure(now: float, sites: list[str]) -> dict[str, Any]:
    begin = dt.datetime.fromtimestamp(now - TICK * (POINTS - 1), dt.UTC).replace(tzinfo=None)
    lines = [
        {"name": site, "x0": begin, "dx": TICK * 1000, "line": {"color": SITES[site], "width": 2.5}, "mode": "lines",
         "y": [round(measure(site, now - TICK * step), 1) for step in reversed(range(POINTS))]}
        for site in sites
    ]  # fmt: skip
    return {"data": lines, "layout": CHART}


@public_callback(persistent=True, websocket=True)
async def pulse() -> None:
    """Runs in every open page, for nobody in particular. Dash starts it again when the websocket has come back."""
    if ctx.websocket is None:
        return
    await ctx.websocket.set_prop("connected", "data", time.time())
    while not ctx.websocket.is_shutdown:
        total, now = sum(measure(site, time.time()) for site in SITES), dt.datetime.now(dt.UTC)
        await ctx.websocket.set_prop("news", "data", [f"{total:.1f} MW", f"{now:%H:%M:%S}", now.timestamp()])
        await asyncio.sleep(TICK)


visits: dict[str, str] = {}  # tab -> which visit to a page is the one that it shows


@callback(Input("url", "pathname"), Input("connected", "data"), State("tab", "data"), persistent=True)
async def stream(path: str, connected: float | None, tab: str) -> None:
    """Runs while a user's tab shows a page, and not a moment longer than its session."""
    if ctx.websocket is None or connected is None:
        return
    visit = visits[tab] = secrets.token_hex(8)
    await ctx.websocket.set_prop("visit", "data", visit)
    site = path.removeprefix("/sites/")
    try:
        while visits.get(tab) == visit and not ctx.websocket.is_shutdown:
            now = time.time()
            if path == "/":
                await ctx.websocket.set_prop("chart", "figure", figure(now, list(SITES)))
                for one in SITES:  # not the whole table: who is about to click a link in it would lose it
                    await ctx.websocket.set_prop(f"{one}-now", "children", f"{measure(one, now):.1f} MW")
                    await ctx.websocket.set_prop(f"{one}-load", "value", f"{measure(one, now) / CAPACITY:.2f}")
            elif site in SITES:
                await ctx.websocket.set_prop("chart", "figure", figure(now, [site]))
                await ctx.websocket.set_prop("site-now", "children", f"{measure(site, now):.1f} MW")
            await asyncio.sleep(TICK)
    finally:
        if visits.get(tab) == visit:
            del visits[tab]


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
        await asyncio.sleep(0.05)  # a real one would take its time: so that there is a bar to watch
    return f"{sum(measure(site, time.time()) for site in SITES) * 24:,.0f} MWh a day, if the wind stays"


@backend.on_connect
async def follow(connection: Connection) -> None:
    if connection.user is not None:
        await backend.subscribe(connection, ANNOUNCEMENTS)


# --------------------------------------------------------------------------------- who is signed in, and ending that


def browser(agent: str) -> str:
    """What browsers say about themselves, in a person's words: "Firefox on Linux"."""
    names = {"Edg": "Edge", "OPR": "Opera", "Firefox": "Firefox", "Chrom": "Chrome", "Safari": "Safari"}
    systems = {"Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Mac OS": "macOS"}
    name = next((name for mark, name in names.items() if mark in agent), "Something else")
    system = next((name for mark, name in {**systems, "Linux": "Linux"}.items() if mark in agent), None)
    return f"{name} on {system}" if system else name


def seen(session: KnownSession) -> list[str]:
    times = (f"{moment:%d %b %H:%M}" for moment in (session.since, session.last_seen))
    return [*times, session.remote or "", browser(session.user_agent)]


SEEN = ("Since, UTC", "Last seen", "From", "Browser")


def own_sessions() -> html.Table:
    rows = []
    for one in backend.sessions(user=current_user.auth_id):
        end = html.Button("Sign out", id={"sign-out": one.id})
        rows.append([*seen(one), "this browser" if one == current_session() else end])
    return table(*SEEN, "", rows=rows)


def is_click() -> bool:
    return bool(ctx.triggered[0]["value"])  # a button that has just come into the page triggers callbacks, too


def told(what: str, receipt: Receipt) -> str:
    return f"{what}. Connections closed: {receipt.closed}, in {receipt.slowest_ms:.1f} ms"


NOTICE = Output("notice", "children", allow_duplicate=True)


@callback(Output("mine", "children"), Input("notice", "children"), prevent_initial_call=True)
def refresh(notice: str) -> Any:
    return own_sessions() if notice else no_update


@callback(NOTICE, Input({"sign-out": ALL}, "n_clicks"), prevent_initial_call=True)
async def sign_out_there(_clicks: list[int | None]) -> Any:
    if not is_click():
        return no_update
    own = backend.sessions(user=current_user.auth_id)
    session = next((one for one in own if one.id == ctx.triggered_id["sign-out"]), None)
    if session is None:  # the id comes from the browser, which may send anybody's
        abort(403)
    return told("Signed out there", await backend.revoke(session=session, reason="signed out elsewhere"))


@callback(NOTICE, Input("elsewhere", "n_clicks"), prevent_initial_call=True)
async def sign_out_elsewhere(_clicks: int) -> Any:
    if not is_click():
        return no_update
    receipt = backend.revoke(user=current_user.auth_id, keep=current_session(), reason="signed out elsewhere")
    return told("Signed out everywhere else", await receipt)


def people(sessions: list[list[str]], users: list[tuple[Any, ...]], nobodies: int, own: Session) -> list[Any]:
    rows: list[list[Any]] = []
    for user, *rest, id in sessions:
        end = html.Button("End session", id={"do": "end", "to": id})
        end_all = html.Button(f"End all of {user}", id={"do": "end-all", "to": id})
        rows.append([user, *rest, "this browser" if id == own.id else html.Div([end, end_all], className="buttons")])
    switches: list[list[Any]] = []
    for name, is_admin in users:
        state: Any = {"aria-checked": str(bool(is_admin)).lower(), "aria-label": f"{name} is an administrator"}
        do = {"do": "switch", "to": name}
        switches.append([name, html.Button(id=do, role="switch", disabled=name == own.user, **state)])
    others = html.Button("End every session but mine", id={"do": "end-others", "to": ""})
    announce = html.Button("Announce maintenance", id={"do": "announce", "to": ""})
    without = html.P(f"Websockets of visitors without a login: {nobodies}", id="nobodies")
    return [
        card("sessions", "Sessions", table("User", *SEEN, "Websockets", "", rows=rows), others, announce, without),
        card("users", "Users", table("User", "Administrator", rows=switches)),
    ]


@protected_callback(
    Output("people", "children"),
    Input("visit", "data"),
    State("tab", "data"),
    groups=[ADMINISTRATORS],
    missing_permissions_output=html.P("Only administrators see what is here."),
    persistent=True,
)
async def watch(visit: str | None, tab: str) -> Any:
    """Runs while the page is shown to an administrator."""
    own, shown = current_session(), None
    while ctx.websocket is not None and own is not None and visit is not None and visits.get(tab) == visit:
        try:
            here = await backend.all_connections()
        except BrokerError:  # it is away for a moment: what is shown stays
            await asyncio.sleep(TICK)
            continue
        count = Counter(one.session and one.session.id for one in here)
        sessions = sorted([str(one.user), *seen(one), str(count[one.id]), one.id] for one in backend.sessions(all=True))
        users = await asyncio.to_thread(sql, "SELECT name, admin FROM users ORDER BY name")
        now = sessions, users, count[None]
        if now != shown:
            await ctx.websocket.set_prop("people", "children", people(*now, own))
            shown = now
        await asyncio.sleep(TICK)
    return no_update


@protected_callback(
    NOTICE,
    Input({"do": ALL, "to": ALL}, "n_clicks"),
    groups=[ADMINISTRATORS],
    missing_permissions_output="Only administrators may do that",
    prevent_initial_call=True,
)
async def administer(_clicks: list[int | None]) -> Any:
    own = current_session()
    if own is None or not is_click():
        return no_update
    match ctx.triggered_id:
        case {"do": "end", "to": session}:
            return told("Session ended", await backend.revoke(session=session, reason="ended by an administrator"))
        case {"do": "end-all", "to": session}:
            user = next((one.user for one in backend.sessions(all=True) if one.id == session), None)
            if user is None:
                return "That session has ended already"
            receipt = backend.revoke(user=user, keep=own, reason="ended by an administrator")
            return told(f"All sessions of {user} ended", await receipt)
        case {"do": "end-others"}:
            receipt = backend.revoke(all=True, keep=own, reason="ended by an administrator")
            return told("Every session but yours ended", await receipt)
        case {"do": "announce"}:  # to everybody who is signed in, on whichever worker
            await backend.set_props("notice", {"children": "Maintenance in ten minutes"}, topic=ANNOUNCEMENTS)
        case {"do": "switch", "to": user} if user != own.user:
            await asyncio.to_thread(sql, "UPDATE users SET admin = NOT admin WHERE name = ?", user)
            return told(f"The rights of {user} have changed", await backend.rights_changed(user))
    return no_update


# ------------------------------------------------------------------------------------------------- many workers


if os.environ.get("DEMO_LOG"):  # the processes of `serve_with` have no other place to say it
    logging.basicConfig(level=logging.INFO, format="%(process)d %(levelname)s %(name)s: %(message)s")


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    # In a group of its own: a Ctrl+C in the terminal is for us, who end the processes in order.
    process = subprocess.Popen(command, process_group=0, **options)  # noqa: S603 - our own command
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def own_redis() -> Iterator[str]:
    """A Redis that keeps nothing, and its URL: a socket in a folder that only we can enter, and that goes with it."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        sys.exit("Several workers need Redis or Valkey: install redis-server, or set DASH_QUART_WS_BROKER to a URL")
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--port",
            "0",
            "--unixsocket",
            f"{folder}/redis.sock",
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        with running(program, *options, "--loglevel", "warning"):
            yield f"unix://{folder}/redis.sock"


def serve_with(workers: int, bind: str) -> int:
    """Serve until SIGINT or SIGTERM with hypercorn's own worker processes; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    command = [sys.executable, "-m", "hypercorn", f"{Path(__file__).with_suffix('')}:server", "--bind", bind]
    with contextlib.ExitStack() as stack:
        broker = os.environ.get("DASH_QUART_WS_BROKER")
        if not broker:
            broker = stack.enter_context(own_redis())
            print(f"with {workers} workers, and a Redis for them: {broker}", flush=True)  # noqa: T201
        env = {**os.environ, "DASH_QUART_WS_BROKER": broker, "DEMO_LOG": "1"}
        return stack.enter_context(running(*command, "--workers", str(workers), env=env)).wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8050)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    config = Config.from_mapping(bind=f"127.0.0.1:{given.port}", errorlog=logging.getLogger("hypercorn"))
    print(f"Open http://{config.bind[0]} and sign in as")  # noqa: T201
    for name, (password, is_admin) in USERS.items():
        print(f"  {name} with {password}{', the administrator' if is_admin else ''}", flush=True)  # noqa: T201
    if given.workers > 1:
        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(serve_with(given.workers, config.bind[0]))
    else:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        asyncio.run(serve(server, config))  # until SIGINT or SIGTERM
