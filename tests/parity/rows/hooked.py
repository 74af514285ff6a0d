"""Dash's hooks, which are the whole process's: its server registers them, and nobody who only reads the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import Input, Output, ctx, hooks, html, set_props

from ..table import call, click, feature, settle
from .components import make_package

if TYPE_CHECKING:
    from dash import Dash


def hook() -> None:
    """Register them: for each Dash app of this process that is made from then on."""

    @hooks.layout()
    def add_to_layout(layout: Any) -> Any:
        return [*layout, *(html.P(id=id) for id in ("of-hook", "of-clientside", "of-error"))]

    @hooks.setup()
    def set_up(app: Dash) -> None:
        app.config.meta_tags.append({"name": "of-setup"})

    @hooks.callback(Output("of-hook", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    async def called(clicks: int) -> str:
        return f"hook {clicks}"

    hooks.clientside_callback(
        "(text) => `${text} ${ofScript} ${getComputedStyle(document.getElementById('of-hook')).color}`",
        Output("of-clientside", "children"),
        Input("of-hook", "children"),
        prevent_initial_call=True,
    )

    @hooks.error()
    def hear_of_errors(error: Exception) -> None:
        set_props("of-error", {"children": f"hook: {error}"})

    @hooks.custom_data("number")
    def number(context: Any) -> int:
        return len(context["inputs_list"])

    @hooks.index()
    def add_to_index(page: str) -> str:
        return page.replace("</body>", "<i>of index</i></body>")

    @hooks.route(name="hooked", methods=("GET",))
    def route() -> Any:
        return {"of": "route"}

    @hooks.websocket_connect()
    async def let_in(websocket: Any) -> bool:
        return "refused" not in websocket.path

    files = {
        "__init__.py": "__version__ = '1.0.0'",
        "own.js": "ofScript = 'script'",
        "own.css": "p {color: rgb(4, 5, 6)}",
    }
    make_package("of_hooks", files)
    hooks.script([{"namespace": "of_hooks", "relative_package_path": "own.js"}])
    hooks.stylesheet([{"namespace": "of_hooks", "relative_package_path": "own.css"}])


@feature(
    "`hooks`: `layout`, `setup`, `callback`, `clientside_callback`, `error`, `custom_data`, `index`, `route`, `script`, "
    "`stylesheet`",
    click("go"),
    settle,
    click("fails"),
    settle,
    call("hooked", None, "of"),
    shows={"out": "1 input", "of-hook": "hook 1", "of-clientside": "hook 1 script rgb(4, 5, 6)", "of-error": "hook: no",
           "#meta[name=of-setup]": 1, "#body > i": 1, "answers": [[200, "route"]]},
    site="hooks",
)  # fmt: skip
def hooked(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.Button(id="fails"), html.P(id="out"), html.P("kept", id="kept")]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def count(_clicks: int) -> str:
        return f"{ctx.custom_data.number} input"

    @app.callback(Output("kept", "children"), Input("fails", "n_clicks"), prevent_initial_call=True)
    def fails(_clicks: int) -> str:
        raise RuntimeError("no")


@feature(
    "`hooks.websocket_connect` that lets nobody in",
    click("go"),
    shows={"out": "1"},
    over_http=("out.children", "of-hook.children"),
    says="goes over HTTP",
    site="hooks",
)
def refused(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out")]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def count(clicks: int) -> int:
        return clicks
