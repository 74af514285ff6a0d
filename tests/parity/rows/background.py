"""Background callbacks, once for each of Dash's managers; the jobs run in processes of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash import Input, Output, ctx, html, no_update, set_props
from dash.exceptions import PreventUpdate

from ..table import click, feature, settle, wait_for
from .errors import FAILED, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash import Dash

    from ..page import Page

MANAGERS = {"diskcache": "`DiskcacheManager`", "celery": "`CeleryManager`"}


def on_both(name: str, *does: Any, **fields: Any) -> Callable[[Callable[[Dash], None]], Callable[[Dash], None]]:
    """One row for each manager."""

    def add(build: Callable[[Dash], None]) -> Callable[[Dash], None]:
        for site, manager in MANAGERS.items():
            feature(f"{manager}: {name}", *does, site=site, says="the job's requests go over HTTP", **fields)(build)
        return build

    return add


def mark(name: str) -> Path:
    """A file by which a job, which shares nothing else with the test, is told something, or tells it."""
    app = ctx.path.partition("/_dash-")[0].strip("/").replace("/", "-")
    return Path(os.environ["JOBS"]) / f"{app}-{name}"


def work() -> None:
    """Say in which process this runs, and go on until `let_go`."""
    mark("pid").write_text(str(os.getpid()))
    go_on()


def go_on() -> None:
    deadline = time.monotonic() + 60
    while not mark("go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let the job go on")
        time.sleep(0.01)


def let_go(page: Page) -> None:
    page.let_go()


def job_to_end(page: Page) -> None:
    page.wait_for_the_jobs_end()


@on_both(
    "`progress=`, `set_progress`, `progress_default=`, `running=`, and the result",
    click("go"),
    wait_for("progress", "half 1"),
    let_go,
    wait_for("out", "done"),
    shows={"out": "done 1", "~story": ["runs", "rests"], "progress": "idle", "go.disabled": False},
    over_http=("out.children",),
)
def job_with_progress(app: Dash) -> None:
    app.layout = [html.Button(id="go"), *(html.P(id=id) for id in ("out", "story", "progress"))]

    @app.callback(
        Output("out", "children"),
        Input("go", "n_clicks"),
        background=True,
        interval=50,
        prevent_initial_call=True,
        running=[(Output("story", "children"), "runs", "rests"), (Output("go", "disabled"), True, False)],
        progress=Output("progress", "children"),
        progress_default="idle",
    )
    def job(set_progress: Any, clicks: int) -> str:
        set_progress(f"half {clicks}")
        work()
        return f"done {clicks}"


@on_both(
    "`cancel=`: the job ends, `running=` too, and the output stays as it is",
    click("go"),
    wait_for("progress", "runs"),
    click("stop"),
    job_to_end,
    wait_for("story", "rests"),
    shows={"out": "kept", "~story": ["runs", "rests"], "progress": "idle"},
    over_http=("out.children", "stop.id"),
)
def job_that_is_cancelled(app: Dash) -> None:
    app.layout = [
        html.Button(id="go"),
        html.Button(id="stop"),
        html.P("kept", id="out"),
        html.P(id="story"),
        html.P(id="progress"),
    ]

    @app.callback(
        Output("out", "children"),
        Input("go", "n_clicks"),
        background=True,
        interval=50,
        prevent_initial_call=True,
        running=[(Output("story", "children"), "runs", "rests")],
        progress=[Output("progress", "children")],
        progress_default=["idle"],
        cancel=Input("stop", "n_clicks"),
    )
    def job(set_progress: Any, _clicks: int) -> str:
        set_progress("runs")
        work()
        return "never"


@on_both(
    "a click while the job of the one before runs: that one ends",
    click("go"),
    wait_for("progress", "runs 1"),
    click("go"),
    job_to_end,
    wait_for("progress", "runs 2"),
    let_go,
    wait_for("out", "done"),
    shows={"out": "done 2"},
    over_http=("out.children",),
)
def job_that_is_outdated(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P("kept", id="out"), html.P(id="progress")]

    @app.callback(
        Output("out", "children"),
        Input("go", "n_clicks"),
        background=True,
        interval=50,
        prevent_initial_call=True,
        progress=[Output("progress", "children")],
    )
    def job(set_progress: Any, clicks: int) -> str:
        if clicks == 1:
            mark("pid").write_text(str(os.getpid()))
        set_progress(f"runs {clicks}")
        go_on()
        return f"done {clicks}"


@on_both(
    "`async def`, several outputs, `set_props`, `no_update`, `PreventUpdate`",
    click("go"),
    wait_for("story", "rests"),
    click("none"),
    wait_for("story", "prevented"),
    shows={"a": "async 1", "b": "kept", "side": "set", "~story": ["runs", "rests", "asks", "prevented"]},
    over_http=("a.children b.children", "b.children"),
)
def job_of_a_coroutine(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("go", "none")), html.P(id="a"), html.P("kept", id="b"),
        html.P(id="side"), html.P(id="story"),
    ]  # fmt: skip

    @app.callback(
        Output("a", "children"),
        Output("b", "children"),
        Input("go", "n_clicks"),
        background=True,
        interval=50,
        prevent_initial_call=True,
        running=[(Output("story", "children"), "runs", "rests")],
    )
    async def job(clicks: int) -> Any:
        set_props("side", {"children": "set"})
        return f"async {clicks}", no_update

    @app.callback(
        Output("b", "children", allow_duplicate=True),
        Input("none", "n_clicks"),
        background=True,
        interval=50,
        prevent_initial_call=True,
        running=[(Output("story", "children"), "asks", "prevented")],
    )
    def prevented(_clicks: int) -> Any:
        raise PreventUpdate


@on_both(
    "an exception, with and without `on_error`",
    click("handled"),
    wait_for("a", "sorry"),
    click("fails"),
    wait_for("story", "failed"),
    shows={"a": "sorry: BackgroundCallbackError", "b": "kept", "~story": ["runs", "failed"]},
    over_http=("a.children", "b.children"),
    complains=(FAILED,),
)
def job_that_fails(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("handled", "fails")),
        html.P("kept", id="a"),
        html.P("kept", id="b"),
        html.P(id="story"),
    ]
    background = {"background": True, "interval": 50, "prevent_initial_call": True}

    @app.callback(
        Output("a", "children"),
        Input("handled", "n_clicks"),
        on_error=lambda error: f"sorry: {type(error).__name__}",
        **background,
    )
    def handled(_clicks: int) -> str:
        raise RuntimeError("no")

    @app.callback(
        Output("b", "children"),
        Input("fails", "n_clicks"),
        running=[(Output("story", "children"), "runs", "failed")],
        **background,
    )
    def fails(_clicks: int) -> str:
        raise RuntimeError(SECRET)


@on_both(
    "beside callbacks over the websocket that wait for its result",
    click("go"),
    settle,
    wait_for("end", "."),
    shows={"first": "1", "out": "job 1", "end": "job 1 shown"},
    over_http=("out.children",),
)
def job_in_a_chain(app: Dash) -> None:
    app.layout = [html.Button(id="go"), *(html.P(id=id) for id in ("first", "out", "end"))]

    @app.callback(Output("first", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    async def first(clicks: int) -> int:
        return clicks

    @app.callback(
        Output("out", "children"), Input("first", "children"), background=True, interval=50, prevent_initial_call=True
    )
    def job(first: int) -> str:
        return f"job {first}"

    @app.callback(Output("end", "children"), Input("out", "children"), prevent_initial_call=True)
    def end(out: str) -> str:
        return f"{out} shown"
