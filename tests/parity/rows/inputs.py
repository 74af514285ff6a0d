"""What a callback is given, and what it may know of who called it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dash import ALL, ALLSMALLER, MATCH, Input, Output, State, ctx, dcc, html

from ..table import click, feature, settle, type_in
from .outputs import own

if TYPE_CHECKING:
    from dash import Dash


@feature(
    "`ALL`, `MATCH` and `ALLSMALLER` as inputs and states, also for what is added later",
    click("add"),
    settle,
    click("add"),
    settle,
    type_in('{"is":"field","no":1}', "x"),
    shows={"all": ["x", "b"], "count": "2", '{"is":"own","no":1}': "x of 2", '{"is":"own","no":2}': "b of 2",
           '{"is":"before","no":1}': [], '{"is":"before","no":2}': ["x"]},
)  # fmt: skip
def wildcard_inputs(app: Dash) -> None:
    app.layout = [html.Button(id="add"), html.Div([], id="rows"), html.P(id="all"), html.P(id="count")]

    @app.callback(
        Output("rows", "children"), Input("add", "n_clicks"), State("rows", "children"), prevent_initial_call=True
    )
    def add(clicks: int, rows: list[Any]) -> list[Any]:
        row = html.Div(
            [
                dcc.Input(id=own("field", clicks), value="ab"[clicks - 1]),
                html.P(id=own("own", clicks)),
                html.P(id=own("before", clicks)),
            ]
        )
        return [*rows, row]

    @app.callback(Output("all", "children"), Input(own("field", ALL), "value"))
    async def gather(values: list[str]) -> str:
        return json.dumps(values)

    @app.callback(Output("count", "children"), Input("all", "children"), State(own("field", ALL), "value"))
    def count(_all: str, values: list[str]) -> int:
        return len(values)

    @app.callback(
        Output(own("own", MATCH), "children"), Input(own("field", MATCH), "value"), State(own("field", ALL), "value"),
        Input("count", "children"),
    )  # fmt: skip
    async def own_text(value: str, values: list[str], _count: int) -> str:
        return f"{value} of {len(values)}"

    @app.callback(
        Output(own("before", MATCH), "children"),
        Input(own("field", MATCH), "value"),
        Input(own("field", ALLSMALLER), "value"),
    )
    def before(_value: str, smaller: list[str]) -> str:
        return json.dumps(smaller)


@feature(
    "`ctx.triggered`, `triggered_id`, `triggered_prop_ids`, `inputs`, `states`, `inputs_list`, `states_list`, `outputs_list`",
    settle,
    click('{"no":2}'),
    shows={
        "~story": [
            '[false, null, {}, {"b.n_clicks": null, "{\\"no\\":1}.n_clicks": null, "{\\"no\\":2}.n_clicks": null}]',
            (
                '[true, {"no": 2}, {"{\\"no\\":2}.n_clicks": {"no": 2}}, '
                '{"b.n_clicks": null, "{\\"no\\":1}.n_clicks": null, "{\\"no\\":2}.n_clicks": 1}]'
            ),
        ],
        "more": {
            "triggered": [{"prop_id": '{"no":2}.n_clicks', "value": 1}],
            "states": {"text.value": "t"},
            "inputs_list": [
                {"id": "b", "property": "n_clicks"},
                [{"id": {"no": 1}, "property": "n_clicks"}, {"id": {"no": 2}, "property": "n_clicks", "value": 1}],
            ],
            "states_list": [{"id": "text", "property": "value", "value": "t"}],
            "outputs_list": [{"id": "story", "property": "children"}, {"id": "more", "property": "children"}],
            "using": [False, False],
        },
    },
)
def context(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("b", {"no": 1}, {"no": 2})),
        dcc.Input(id="text", value="t"),
        html.P(id="story"),
        html.P(id="more"),
    ]

    @app.callback(
        Output("story", "children"), Output("more", "children"),
        Input("b", "n_clicks"), Input({"no": ALL}, "n_clicks"), State("text", "value"),
    )  # fmt: skip
    def tell(*_values: Any) -> tuple[str, str]:
        brief = [bool(ctx.triggered), ctx.triggered_id, ctx.triggered_prop_ids, ctx.inputs]
        more = {
            "triggered": ctx.triggered,
            "states": ctx.states,
            "inputs_list": ctx.inputs_list,
            "states_list": ctx.states_list,
            "outputs_list": ctx.outputs_list,
            "using": [ctx.using_args_grouping, ctx.using_outputs_grouping],
        }
        return json.dumps(brief), json.dumps(more)


@feature(
    "Grouped and named arguments, `ctx.args_grouping` and `outputs_grouping`",
    click("b"),
    shows={
        "x": "pair 1 None t",
        "y": {
            "args": {
                "one": {"id": "a", "property": "n_clicks", "str_id": "a", "triggered": False, "value": None},
                "pair": [
                    {"id": "b", "property": "n_clicks", "str_id": "b", "triggered": True, "value": 1},
                    {"id": "text", "property": "value", "str_id": "text", "triggered": False, "value": "t"},
                ],
            },
            "outputs": {"first": {"id": "x", "property": "children"}, "second": {"id": "y", "property": "children"}},
            "using": [True, True],
        },
        "mixed": "1 t None",
    },
)  # fmt: skip
def grouped_arguments(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in "ab"), dcc.Input(id="text", value="t"), *(html.P(id=id) for id in ("x", "y", "mixed")),
    ]  # fmt: skip

    @app.callback(
        output={"first": Output("x", "children"), "second": Output("y", "children")},
        inputs={"one": Input("a", "n_clicks"), "pair": (Input("b", "n_clicks"), State("text", "value"))},
        prevent_initial_call=True,
    )
    async def tell(one: int | None, pair: tuple[int, str]) -> dict[str, str]:
        told = {
            "args": {name: ctx.args_grouping[name] for name in ("one", "pair")},
            "outputs": ctx.outputs_grouping,
            "using": [ctx.using_args_grouping, ctx.using_outputs_grouping],
        }
        assert ctx.args_grouping.pair[0].triggered
        return {"first": f"pair {pair[0]} {one} {pair[1]}", "second": json.dumps(told)}

    @app.callback(
        Output("mixed", "children"), Input("b", "n_clicks"), State("text", "value"), Input("a", "n_clicks"),
        prevent_initial_call=True,
    )  # fmt: skip
    def mixed(b: int, text: str, a: int | None) -> str:
        return f"{b} {text} {a}"


@feature(
    "`optional=True`, `allow_optional=True`: components that are not there",
    click("go"),
    shows={"out": "1 None None", "late": "1"},
)
def optional(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out"), html.P(id="late")]

    @app.callback(
        Output("out", "children"),
        Input("go", "n_clicks"), Input("nowhere", "value", allow_optional=True), State("go", "title"),
        prevent_initial_call=True,
    )  # fmt: skip
    def tell(*values: Any) -> str:
        return " ".join(map(str, values))

    @app.callback(Output("missing", "children"), Input("go", "n_clicks"), optional=True)
    def never(_clicks: int | None) -> str:
        return "never"

    @app.callback(
        Output("late", "children"), Input("go", "n_clicks"), optional=True, hidden=True, prevent_initial_call=True
    )
    async def late(clicks: int) -> int:
        return clicks


@feature(
    "`ctx.custom_data`, `ctx.cookies`, `headers`, `origin`, `path`, `remote`",
    click("go"),
    shows={"out": ["path", True, True, True, "127.0.0.1", True]},
)
def request_context(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out")]

    @app.callback(Output("out", "children"), Input("go", "n_clicks"), prevent_initial_call=True)
    def tell(_clicks: int) -> str:
        return json.dumps(
            [
                "path" if ctx.path.partition("?")[0].endswith("/request-context/_dash-update-component") else ctx.path,
                "QUART_AUTH" in ctx.cookies,
                "Chrome" in ctx.headers["User-Agent"],
                ctx.origin.endswith(ctx.headers["Host"]),
                ctx.remote,
                ctx.custom_data.came_over in ("http", "socket"),
            ]
        )
