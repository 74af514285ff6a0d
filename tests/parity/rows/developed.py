"""What Dash's dev tools show in debug mode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dash import Input, Output, ctx, dcc, html
from dash.exceptions import PreventUpdate
from quart import abort

from ..table import click, feature, settle, unfold_errors, upload

if TYPE_CHECKING:
    from dash import Dash

TITLE = "Callback error updating "
FAILED = (TITLE,) * 4


def errors(called: str = "", called_async: str = "", validated: str = "") -> list[Any]:
    """The newest first: title, what it says, and the functions of the traceback, of which these are Dash's."""
    return [
        [f"{TITLE}abort-out.children", "403 Forbidden", []],
        [
            f"{TITLE}object-out.children",
            "InvalidCallbackReturnValue: The callback for `<Output `objec",
            validated.split(),
        ],
        [f"{TITLE}async-out.children", "RuntimeError: in vain", [*called_async.split(), "fail"]],
        [f"{TITLE}sync-out.children", "ZeroDivisionError: division by zero", [*called.split(), "divide", "within"]],
    ]


def failing(app: Dash) -> None:
    ids = ("sync", "async", "object", "abort")
    app.layout = [*(html.Button(id=id) for id in ids), *(html.P(id=f"{id}-out") for id in ids)]
    outputs = {id: Output(f"{id}-out", "children") for id in ids}

    @app.callback(outputs["sync"], Input("sync", "n_clicks"), prevent_initial_call=True)
    def divide(_clicks: int) -> float:
        return within(0)

    @app.callback(outputs["async"], Input("async", "n_clicks"), prevent_initial_call=True)
    async def fail(_clicks: int) -> None:
        raise RuntimeError("in vain")

    @app.callback(outputs["object"], Input("object", "n_clicks"), prevent_initial_call=True)
    def no_json(_clicks: int) -> Any:
        return object

    @app.callback(outputs["abort"], Input("abort", "n_clicks"), prevent_initial_call=True)
    async def aborts(_clicks: int) -> None:
        abort(403)


def within(number: int) -> float:
    return 1 / number


CLICKS = (click("sync"), settle, click("async"), settle, click("object"), settle, click("abort"), settle)


@feature(
    "Dev tools: the error overlay, with tracebacks that are pruned",
    *CLICKS,
    unfold_errors(4),
    shows={"overlay": errors()},
    complains=FAILED,
    site="debug",
    dev_tools={},
)
def overlay(app: Dash) -> None:
    failing(app)


@feature(
    "Dev tools: the error overlay, with the whole traceback",
    *CLICKS,
    unfold_errors(4),
    shows={
        "overlay": errors(
            "add_context add_context _invoke_callback",
            "async_add_context async_add_context _async_invoke_callback",
            "add_context to_json to_json_plotly add_context fail_callback_output _validate_value _raise_invalid",
        )
    },
    complains=FAILED,
    site="debug",
    dev_tools={"dev_tools_prune_errors": False},
)
def overlay_with_all(app: Dash) -> None:
    failing(app)


@feature(
    "Dev tools: what is too large for the websocket fails with its traceback, too",
    upload("file", 5_000_000),
    settle,
    unfold_errors(1),
    shows={"overlay": [[f"{TITLE}out.children", "ValueError: of 6666705 characters", ["fails"]]], "graph": {}},
    complains=(TITLE,),
    over_http=("out.children",),
    says="goes over HTTP by itself: `message_bytes`",
    site="debug",
    dev_tools={},
)
def overlay_of_an_upload(app: Dash) -> None:
    app.layout = [dcc.Upload("here", id="file"), html.P(id="out")]

    @app.callback(Output("out", "children"), Input("file", "contents"), prevent_initial_call=True)
    def fails(contents: str) -> None:
        raise ValueError(f"of {len(contents)} characters")


def counted(
    uploaded: int, downloaded: int, resources: dict[str, int], status: str = "SUCCESS", *, waited: bool = False
) -> dict[str, Any]:
    """Of two calls. One that raises is not counted."""
    return {
        "count": 2,
        "status": {status: 2, "latest": status},
        "bytes": [uploaded, downloaded],
        "resources": resources,
        "waited": waited,
    }


@feature(
    "Dev tools: the callback graph counts calls, times and bytes, and what `ctx.record_timing` measures",
    click("go"),
    settle,
    click("go"),
    settle,
    shows={
        "graph": {
            "sync.children": counted(400, 2100, {"database": 500}, waited=True),
            "async.children": counted(404, 302, {"database": 500, "other": 1000}),
            "same.children": counted(400, 0, {}, "NO_UPDATE"),
        }
    },
    complains=(TITLE,) * 2,
    site="debug",
    dev_tools={},
)
def graph(app: Dash) -> None:
    names = ("sync", "async", "same", "fails")
    app.layout = [html.Button(id="go"), *(html.P(id=name) for name in names)]
    outputs = {name: Output(name, "children") for name in names}
    go = Input("go", "n_clicks")

    @app.callback(outputs["sync"], go, prevent_initial_call=True)
    def synchronous(_clicks: int) -> str:
        time.sleep(1)
        ctx.record_timing("database", 0.25)
        return "x" * 1000

    @app.callback(outputs["async"], go, prevent_initial_call=True)
    async def asynchronous(_clicks: int) -> str:
        ctx.record_timing("database", 0.25, "of the users")
        ctx.record_timing("other", 0.5)
        return "x" * 100

    @app.callback(outputs["same"], go, prevent_initial_call=True)
    def unchanged(_clicks: int) -> None:
        raise PreventUpdate

    @app.callback(outputs["fails"], go, prevent_initial_call=True)
    def fails(_clicks: int) -> None:
        raise RuntimeError("in vain")
