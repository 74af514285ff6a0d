"""What becomes of exceptions, in production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import Input, Output, ctx, html, set_props
from dash.exceptions import PreventUpdate
from quart import abort

from ..table import click, feature, settle

if TYPE_CHECKING:
    from dash import Dash

SECRET = "nobody may read this"
FAILED = rf"(?s)^(?!.*({SECRET}|RuntimeError|ValueError|Traceback)).*(Callback error updating|Callback failed)"
"""What the renderer calls it over HTTP, and over the websocket. It is not told what was raised."""


@feature(
    "A callback that raises: the page stays as it is, goes on, and is told nothing",
    click("sync"),
    settle,
    click("async"),
    settle,
    click("fine"),
    shows={"out": "kept", "other": "1", "title": "Dash"},
    complains=(FAILED, FAILED),
)
def raising(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("sync", "async", "fine")),
        html.P("kept", id="out"),
        html.P(id="other"),
    ]
    output = Output("out", "children", allow_duplicate=True)

    @app.callback(output, Input("sync", "n_clicks"), prevent_initial_call=True)
    def sync(_clicks: int) -> str:
        raise RuntimeError(SECRET)

    @app.callback(output, Input("async", "n_clicks"), prevent_initial_call=True)
    async def asynchronous(_clicks: int) -> str:
        raise RuntimeError(SECRET)

    @app.callback(Output("other", "children"), Input("fine", "n_clicks"), prevent_initial_call=True)
    def fine(clicks: int) -> int:
        return clicks


@feature(
    "What cannot be returned, and too few values: an error",
    click("object"),
    settle,
    click("few"),
    settle,
    click("abort"),
    shows={"a": "kept", "b": "kept"},
    complains=(FAILED, FAILED, "403 Forbidden"),
)
def bad_returns(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("object", "few", "abort")),
        html.P("kept", id="a"),
        html.P("kept", id="b"),
    ]
    a, b = (Output(id, "children", allow_duplicate=True) for id in "ab")

    @app.callback(a, Input("object", "n_clicks"), prevent_initial_call=True)
    def no_json(_clicks: int) -> Any:
        return object()

    @app.callback(a, b, Input("few", "n_clicks"), prevent_initial_call=True)
    async def too_few(_clicks: int) -> Any:
        return ["one"]

    @app.callback(b, Input("abort", "n_clicks"), prevent_initial_call=True)
    def aborts(_clicks: int) -> Any:
        abort(403)


def apologise(error: Exception) -> str:
    set_props("by", {"children": f"{type(error).__name__} for {ctx.triggered_id}"})
    return f"sorry: {error}"


@feature(
    "`on_error` of the app",
    click("go"),
    settle,
    click("prevented"),
    shows={"out": "sorry: no", "by": "RuntimeError for go", "other": "kept"},
    on_error=apologise,
)
def on_error_of_the_app(app: Dash) -> None:
    app.layout = [
        html.Button(id="go"),
        html.Button(id="prevented"),
        html.P(id="out"),
        html.P(id="by"),
        html.P("kept", id="other"),
    ]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def fails(_clicks: int) -> str:
        raise RuntimeError("no")

    @app.callback(Output("other", "children"), Input("prevented", "n_clicks"), prevent_initial_call=True)
    def prevented(_clicks: int) -> str:
        raise PreventUpdate


@feature(
    "`on_error` of a callback: a value, several, nothing, and an error of its own",
    click("value"),
    settle,
    click("several"),
    settle,
    click("nothing"),
    settle,
    click("worse"),
    shows={"a": "sorry: value", "b": "sorry", "c": "all", "d": "kept", "e": "kept", "by": "RuntimeError for value"},
    complains=(FAILED,),
    on_error=lambda _error: "the app's",
)
def on_error_of_a_callback(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("value", "several", "nothing", "worse")),
        *(html.P("kept", id=id) for id in "abcde"), html.P(id="by"),
    ]  # fmt: skip

    @app.callback(Output("a", "children"), Input("value", "n_clicks"), on_error=apologise, prevent_initial_call=True)
    def value(_clicks: int) -> str:
        raise RuntimeError("value")

    @app.callback(
        Output("b", "children"), Output("c", "children"), Input("several", "n_clicks"),
        on_error=lambda _error: ("sorry", "all"), prevent_initial_call=True,
    )  # fmt: skip
    async def several(_clicks: int) -> Any:
        raise RuntimeError("several")

    @app.callback(
        Output("d", "children"), Input("nothing", "n_clicks"), on_error=lambda _error: None, prevent_initial_call=True
    )
    def nothing(_clicks: int) -> Any:
        raise RuntimeError("nothing")

    def worse_still(_error: Exception) -> str:
        raise ValueError(SECRET)

    @app.callback(Output("e", "children"), Input("worse", "n_clicks"), on_error=worse_still, prevent_initial_call=True)
    def worse(_clicks: int) -> Any:
        raise RuntimeError("worse")


@feature(
    "`ctx.record_timing` and `ctx.timing_information`",
    click("go"),
    settle,
    click("go"),
    shows={"out": "2: part, KeyError"},
)
def timing(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out"), html.P(id="again")]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def measure(clicks: int) -> str:
        ctx.record_timing("part", 0.25, "a part")
        assert ctx.timing_information["part"] == {"dur": 250, "desc": "a part"}
        try:
            ctx.record_timing("part", 1)
        except KeyError as error:
            return f"{clicks}: {', '.join(name for name in ctx.timing_information if name[0] != '_')}, {type(error).__name__}"
        return f"{clicks}: recorded twice"

    @app.callback(Output("again", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    async def another(clicks: int) -> str:
        ctx.record_timing("part", 0.5)
        return f"{clicks}"
