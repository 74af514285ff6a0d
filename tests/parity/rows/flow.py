"""When callbacks run: at the start, one after the other, in circles, for as long as the page is there."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import json
import time
from typing import TYPE_CHECKING, Any

from dash import ALL, MATCH, Input, Output, State, ctx, dcc, html, set_props
from quart_auth import current_user

from ..table import click, feature, settle, type_in, wait_for

if TYPE_CHECKING:
    from dash import Dash

LINKS = 20
"""Callbacks in the chain."""


@feature(
    "Initial calls, `prevent_initial_call`, and those of components that come later",
    settle,
    click("go"),
    shows={
        "at-start": "None",
        "prevented": "kept",
        "late": "born at start",
        "late-prevented": "kept",
        "no-input": "once",
    },
    suppress_callback_exceptions=True,
)
def initial_calls(app: Dash) -> None:
    app.layout = [
        html.Button(id="go"),
        html.Div(id="place"),
        *(html.P("kept", id=id) for id in ("at-start", "prevented", "no-input")),
    ]

    @app.callback(Output("at-start", "children"), Input("prevented", "title"))
    async def at_start(title: str | None) -> str:
        return str(title)

    @app.callback(Output("prevented", "children"), Input("at-start", "title"), prevent_initial_call=True)
    def prevented(_title: str) -> str:
        return "called"

    @app.callback(Output("no-input", "children"))
    def no_input() -> str:
        return "once"

    @app.callback(Output("place", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def build(_clicks: int) -> Any:
        return [html.P(id="late", title="born"), html.P("kept", id="late-prevented")]

    @app.callback(Output("late", "children"), Input("late", "title"))
    async def late(title: str) -> str:
        return f"{title} at start"

    @app.callback(Output("late-prevented", "children"), Input("late-prevented", "title"), prevent_initial_call=True)
    def late_prevented(_title: str) -> str:
        return "called"


@feature(
    "`prevent_initial_callbacks=True` of the app",
    settle,
    click("go"),
    shows={"~story": ["clicked 1"], "b": "at start"},
    prevent_initial_callbacks=True,
)
def prevented_by_the_app(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="story"), html.P(id="b")]

    @app.callback(Output("story", "children"), Input("go", "n_clicks"))
    def clicked(clicks: int) -> str:
        return f"clicked {clicks}"

    @app.callback(Output("b", "children"), Input("b", "title"), prevent_initial_call=False)
    def b(_title: str) -> str:
        return "at start"


@feature(
    f"A chain of {LINKS} callbacks, `def` and `async def` in turn",
    click("go"),
    shows={"link-19": "".join(["1", *(f",{no}" for no in range(LINKS))])},
)
def chain(app: Dash) -> None:
    app.layout = [html.Button(id="go"), *(html.P(id=f"link-{no}") for no in range(LINKS))]

    def link(no: int) -> None:
        source = Input(f"link-{no - 1}", "children") if no else Input("go", "n_clicks")

        if no % 2:

            @app.callback(Output(f"link-{no}", "children"), source, prevent_initial_call=True)
            def sync(before: Any) -> str:
                return f"{before},{no}"

        else:

            @app.callback(Output(f"link-{no}", "children"), source, prevent_initial_call=True)
            async def asynchronous(before: Any) -> str:
                await asyncio.sleep(0)
                return f"{before},{no}"

    for no in range(LINKS):
        link(no)


@feature(
    "A callback waits for all that its inputs wait for (a diamond), and runs once",
    click("go"),
    settle,
    shows={"end": "left 1 right 1", "~story": ["left 1 right 1"]},
)
def diamond(app: Dash) -> None:
    app.layout = [html.Button(id="go"), *(html.P(id=id) for id in ("left", "right", "end", "story"))]

    @app.callback(Output("left", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def left(clicks: int) -> str:
        time.sleep(0.1)
        return f"left {clicks}"

    @app.callback(Output("right", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    async def right(clicks: int) -> str:
        return f"right {clicks}"

    @app.callback(
        Output("end", "children"), Output("story", "children"),
        Input("left", "children"), Input("right", "children"), prevent_initial_call=True,
    )  # fmt: skip
    def end(left: str, right: str) -> tuple[str, str]:
        return (f"{left} {right}",) * 2


@feature(
    "Circular callbacks",
    settle,
    type_in("celsius", "100"),
    settle,
    type_in("fahrenheit", "32"),
    settle,
    shows={"celsius.value": "0", "fahrenheit.value": "32", "~story": ["celsius 212", "fahrenheit 0"]},
)
def circle(app: Dash) -> None:
    app.layout = [
        *(dcc.Input(id=id, type="number", debounce=True) for id in ("celsius", "fahrenheit")),
        html.P(id="story"),
    ]

    @app.callback(
        Output("celsius", "value"), Output("fahrenheit", "value"), Output("story", "children"),
        Input("celsius", "value"), Input("fahrenheit", "value"), prevent_initial_call=True,
    )  # fmt: skip
    def convert(celsius: float, fahrenheit: float) -> tuple[float, float, str]:
        by = ctx.triggered_id
        if by == "celsius":
            fahrenheit = round(celsius * 9 / 5 + 32)
            return celsius, fahrenheit, f"{by} {fahrenheit}"
        celsius = round((fahrenheit - 32) * 5 / 9)
        return celsius, fahrenheit, f"{by} {celsius}"


@feature(
    "`running=`, of `def` and `async def`, also with `ALL` and `MATCH`, and when the callback fails",
    click("sync"),
    settle,
    click("async"),
    settle,
    click("fails"),
    settle,
    click('{"is":"button","story":2}'),
    shows={"~story": ["sync", "rests", "async", "rests", "fails", "idle"], "sync.disabled": False, "out": "async 1",
           '~{"story":1}': ["sync", "rests", "async", "rests", "fails", "idle"],
           '~{"story":2}': ["sync", "rests", "async", "rests", "fails", "idle", "matched", "done"],
           '{"is":"out","story":2}': "1"},
    complains=("Callback error updating none.children|Callback failed|500",),
)  # fmt: skip
def running(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("sync", "async", "fails")),
        *(html.P(id=id) for id in ("out", "none", "story", {"story": 1}, {"story": 2})),
        *(html.Button(id={"is": "button", "story": no}) for no in (1, 2)),
        *(html.P(id={"is": "out", "story": no}) for no in (1, 2)),
    ]

    def story(running: str, after: str) -> list[Any]:
        return [
            (Output("story", "children"), running, after),
            (Output({"story": ALL}, "children"), running, after),
            (Output("sync", "disabled"), True, False),
        ]

    @app.callback(
        Output({"is": "out", "story": MATCH}, "children"), Input({"is": "button", "story": MATCH}, "n_clicks"),
        running=[(Output({"story": MATCH}, "children"), "matched", "done")], prevent_initial_call=True,
    )  # fmt: skip
    async def matched(clicks: int) -> int:
        await asyncio.sleep(0.15)
        return clicks

    @app.callback(
        Output("out", "children"), Input("sync", "n_clicks"), running=story("sync", "rests"), prevent_initial_call=True
    )
    def sync(clicks: int) -> str:
        time.sleep(0.15)
        return f"sync {clicks}"

    @app.callback(
        Output("out", "children", allow_duplicate=True), Input("async", "n_clicks"),
        running=story("async", "rests"), prevent_initial_call=True,
    )  # fmt: skip
    async def asynchronous(clicks: int) -> str:
        await asyncio.sleep(0.15)
        return f"async {clicks}"

    @app.callback(
        Output("none", "children"),
        Input("fails", "n_clicks"),
        running=story("fails", "idle"),
        prevent_initial_call=True,
    )
    def fails(_clicks: int) -> str:
        time.sleep(0.15)
        raise RuntimeError("no")


@feature(
    "Clientside callbacks between server ones: a value, a promise, `no_update`, `set_props`, `triggered_id`",
    click("go"),
    shows={"first": "server 1", "second": "server 1 client go", "third": "server 1 client go server", "side": "set",
           "kept": "kept",            "end": "server 1 client go server client"},
)  # fmt: skip
def clientside(app: Dash) -> None:
    app.layout = [
        html.Button(id="go"), *(html.P(id=id) for id in ("first", "second", "third", "side", "end")),
        html.P("kept", id="kept"), dcc.Store(id="by"),
    ]  # fmt: skip

    @app.callback(Output("first", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def first(clicks: int) -> str:
        return f"server {clicks}"

    app.clientside_callback(
        "() => dash_clientside.callback_context.triggered_id",
        Output("by", "data"),
        Input("go", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        """(text, by) => {
            dash_clientside.set_props("side", {children: "set"});
            return [`${text} client ${by}`, dash_clientside.no_update];
        }""",
        Output("second", "children"),
        Output("kept", "children"),
        Input("first", "children"),
        Input("by", "data"),
        prevent_initial_call=True,
    )

    @app.callback(Output("third", "children"), Input("second", "children"), prevent_initial_call=True)
    async def third(text: str) -> str:
        return f"{text} server"

    app.clientside_callback(
        "async (text) => { await new Promise((done) => setTimeout(done, 50)); return `${text} client`; }",
        Output("end", "children"),
        Input("third", "children"),
        prevent_initial_call=True,
    )


@feature(
    "Callbacks without input and output, which run once for each page",
    settle,
    shows={"out": "started"},
)
def without_input_and_output(app: Dash) -> None:
    app.layout = html.P(id="out")

    @app.callback()
    def start() -> None:
        set_props("out", {"children": "started"})


@feature(
    '`persistent=True`: the title does not say "Updating..."; others do',
    click("quiet"),
    wait_for("out", "quiet 1"),
    settle,
    click("loud"),
    wait_for("out", "loud 1"),
    settle,
    shows={"~title": ["Dash", "Updating...", "Dash"], "~story": ["quiet", "loud"], "title": "Dash"},
)
def persistent(app: Dash) -> None:
    app.layout = [html.Button(id="quiet"), html.Button(id="loud"), html.P(id="out"), html.P(id="story")]

    @app.callback(Input("quiet", "n_clicks"), persistent=True, prevent_initial_call=True)
    async def quiet(clicks: int) -> None:
        await asyncio.sleep(0.3)
        set_props("out", {"children": f"quiet {clicks}"})
        set_props("story", {"children": "quiet"})

    @app.callback(Input("loud", "n_clicks"), prevent_initial_call=True)
    async def loud(clicks: int) -> None:
        await asyncio.sleep(0.3)
        set_props("out", {"children": f"loud {clicks}"})
        set_props("story", {"children": "loud"})


@feature(
    "`persistent=True` without an end: a stream of `set_props`, which ends with its page",
    click("open"),
    click("tell"),
    wait_for("out", "1, 2 of 2"),
    click("close"),
    click("tell"),
    shows={"out": "1 of 2", "title": "Dash"},
    shows_live={"~story": ["1", "2", "3"]},
    is_endless=True,
    says="what it sets is seen while it runs; over HTTP never",
)
def endless(app: Dash) -> None:
    ids = ("open", "close", "tell")
    app.layout = [*(html.Button(id=id) for id in ids), html.Div(id="page"), html.P(id="out"), html.P(id="story")]
    began: list[str] = []
    running: set[str] = set()

    @app.callback(persistent=True)
    async def stream() -> None:
        me = str(len(began) + 1)
        began.append(me)
        running.add(me)
        try:
            for no in itertools.count(1):
                set_props("story", {"children": str(min(no, 3))})
                await asyncio.sleep(0.05)
        finally:
            running.discard(me)

    @app.callback(Output("page", "children"), Input("open", "n_clicks"), prevent_initial_call=True)
    def open_another(_clicks: int) -> html.Iframe:
        return html.Iframe(src=app.config.requests_pathname_prefix)

    @app.callback(
        Output("page", "children", allow_duplicate=True), Input("close", "n_clicks"), prevent_initial_call=True
    )
    def close_it(_clicks: int) -> None:
        return None

    @app.callback(Output("out", "children"), Input("tell", "n_clicks"), prevent_initial_call=True)
    async def tell(clicks: int) -> str:
        expected = {"1", "2"} if clicks == 1 else {"1"}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while running != expected:
                    await asyncio.sleep(0.01)
        return f"{', '.join(sorted(running))} of {len(began)}"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@feature(
    "`def` and `async def`: who is signed in, context variables, and clicks that overtake one another",
    click("go"),
    click("go"),
    click("go"),
    settle,
    shows={"sync": ["alice", "nothing", 3], "async": ["alice", "nothing", 3]},
)
def sync_and_async(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="sync"), html.P(id="async")]

    def told(clicks: int) -> str:
        before = variable.get()
        variable.set(f"of click {clicks}")
        return json.dumps([current_user.auth_id, before, clicks])

    @app.callback(Output("sync", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def sync(clicks: int) -> str:
        time.sleep(0.3 / clicks)
        return told(clicks)

    @app.callback(Output("async", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    async def asynchronous(clicks: int) -> str:
        await asyncio.sleep(0.3 / clicks)
        return told(clicks)


@feature(
    "`dcc.Interval`, until it is disabled by a callback",
    wait_for("ticks", "3"),
    settle,
    shows={"ticks": "3", "@interval.disabled": True},
)
def interval(app: Dash) -> None:
    app.layout = [dcc.Interval(id="interval", interval=50), html.P(id="ticks")]

    @app.callback(
        Output("ticks", "children"),
        Output("interval", "disabled"),
        Input("interval", "n_intervals"),
        prevent_initial_call=True,
    )
    def tick(ticks: int) -> tuple[int, bool]:
        return min(ticks, 3), ticks >= 3


@feature(
    "`State` is that of the moment when the callback is sent; two inputs that change together are one call",
    click("go"),
    settle,
    click("tell"),
    shows={"out": ["x", "y", ["a.title", "b.title"]], "calls": "x y"},
)
def together(app: Dash) -> None:
    app.layout = [
        html.Button(id="go"), html.Button(id="tell"), *(html.P(id=id) for id in ("a", "b", "out", "calls")),
        dcc.Store(id="by"),
    ]  # fmt: skip

    @app.callback(Output("a", "title"), Output("b", "title"), Input("go", "n_clicks"), prevent_initial_call=True)
    def both(_clicks: int) -> tuple[str, str]:
        return "x", "y"

    @app.callback(
        Output("calls", "children"),
        Output("by", "data"),
        Input("a", "title"),
        Input("b", "title"),
        prevent_initial_call=True,
    )
    async def call(a: str, b: str) -> tuple[str, list[str]]:
        return f"{a} {b}", sorted(ctx.triggered_prop_ids)

    @app.callback(
        Output("out", "children"),
        Input("tell", "n_clicks"), State("a", "title"), State("b", "title"), State("by", "data"), prevent_initial_call=True,
    )  # fmt: skip
    def tell(_clicks: int, a: str, b: str, by: list[str]) -> str:
        return json.dumps([a, b, by])
