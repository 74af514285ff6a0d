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
    "Grouped and named arguments, also with wildcards, `ctx.args_grouping` and `outputs_grouping`",
    click("b"),
    click('{"no":2}'),
    shows={
        "x": "pair 1 None t",
        "y": {
            "args": {
                "one": {"id": "a", "property": "n_clicks", "str_id": "a", "triggered": False, "value": None},
                "pair": [
                    {"id": "b", "property": "n_clicks", "str_id": "b", "triggered": True, "value": 1},
                    {"id": "text", "property": "value", "str_id": "text", "triggered": False, "value": "t"},
                ],
                "all": [
                    {"id": {"no": no}, "property": "n_clicks", "str_id": f'{{"no":{no}}}', "triggered": False, "value": None}
                    for no in (1, 2)
                ],
            },
            "outputs": {"first": {"id": "x", "property": "children"}, "second": {"id": "y", "property": "children"}},
            "using": [True, True],
        },
        "mixed": "1 t None",
        "dict": "True 1 [None, 1] 2",
    },
)  # fmt: skip
def grouped_arguments(app: Dash) -> None:
    app.layout = [
        *(html.Button(id=id) for id in ("a", "b", {"no": 1}, {"no": 2})), dcc.Input(id="text", value="t"),
        *(html.P(id=id) for id in ("x", "y", "mixed", "dict")),
    ]  # fmt: skip

    @app.callback(
        output={"first": Output("x", "children"), "second": Output("y", "children")},
        inputs={"one": Input("a", "n_clicks"), "pair": (Input("b", "n_clicks"), State("text", "value"))},
        state={"all": State({"no": ALL}, "n_clicks")},
        prevent_initial_call=True,
    )
    async def tell(one: int | None, pair: tuple[int, str], all: list[int | None]) -> dict[str, str]:
        told = {
            "args": {name: ctx.args_grouping[name] for name in ("one", "pair", "all")},
            "outputs": ctx.outputs_grouping,
            "using": [ctx.using_args_grouping, ctx.using_outputs_grouping],
        }
        assert ctx.args_grouping.pair[0].triggered
        assert all == [None, None]
        return {"first": f"pair {pair[0]} {one} {pair[1]}", "second": json.dumps(told)}

    @app.callback(
        Output("mixed", "children"), Input("b", "n_clicks"), State("text", "value"), Input("a", "n_clicks"),
        prevent_initial_call=True,
    )  # fmt: skip
    def mixed(b: int, text: str, a: int | None) -> str:
        return f"{b} {text} {a}"

    @app.callback(
        Output("dict", "children"), inputs={"each": Input({"no": ALL}, "n_clicks")}, prevent_initial_call=True
    )
    def by_dict_id(each: list[int | None]) -> str:
        told = ctx.args_grouping.each
        (triggered,) = (one for one in told if one.triggered)
        return f"{ctx.using_args_grouping} {triggered.value} {each} {triggered.id.no}"


@feature(
    "`optional=True`, `allow_optional=True`: components that are not there",
    click("go"),
    shows={"out": "1 None None None", "late": "1"},
)
def optional(app: Dash) -> None:
    app.layout = [html.Button(id="go"), html.P(id="out"), html.P(id="late")]

    @app.callback(
        Output("out", "children"),
        Input("go", "n_clicks"), Input("nowhere", "value", allow_optional=True), State("go", "title"),
        State({"no": 1}, "value", allow_optional=True),
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
    "`ctx.custom_data`, `ctx.cookies`, `headers`, `origin`, `path`, `args`, `remote`",
    click("go"),
    shows={"out": ["path", True, True, True, True, "127.0.0.1", True]},
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
                set(ctx.args.keys()) <= {"endId"},  # the page's token is Dash's own business
                ctx.remote,
                ctx.custom_data.came_over in ("http", "socket"),
            ]
        )


JAVASCRIPT = r"""
() => [{
  none: null, missing: undefined, yes: true, int: 1, whole: 2.0, float: 0.1, big: 2 ** 53, huge: 1e21, minus: -1, zero: -0,
  not: NaN, text: "ä€𝄞 <\/script> \u2028", escaped: "\"\\\n\0", empty: [[], {}, "", 0, false],
  keys: {1: "a", "": "b"}, date: new Date(0), deep: [[{a: [{b: null}]}]],
}, "\ud800"]
"""


@feature(
    "Values of every kind as an input and as a state",
    click("go"),
    shows={
        "out": (
            "{'none': None, 'yes': True, 'int': 1, 'whole': 2, 'float': 0.1, 'big': 9007199254740992, "
            "'huge': 1e+21, 'minus': -1, 'zero': 0, 'not': None, 'text': 'ä€𝄞 </script> \\u2028', "
            "'escaped': '\"\\\\\\n\\x00', 'empty': [[], {}, '', 0, False], "
            "'keys': {'1': 'a', '': 'b'}, 'date': '1970-01-01T00:00:00.000Z', 'deep': [[{'a': [{'b': None}]}]]}"
        ),
        "as-state": "the same",
        "half": "'\\ud800'",
        "falsy": [0, "", False, [], {}, None],
    },
)
def given_values(app: Dash) -> None:
    falsy = {"zero": 0, "text": "", "no": False, "list": [], "dict": {}, "none": None}
    app.layout = [
        html.Button(id="go"), *(dcc.Store(id=id, data=data) for id, data in falsy.items()),
        *(dcc.Store(id=id) for id in ("data", "surrogate")), *(html.P(id=id) for id in ("out", "as-state", "half", "falsy")),
    ]  # fmt: skip
    app.clientside_callback(
        JAVASCRIPT,
        Output("data", "data"),
        Output("surrogate", "data"),
        Input("go", "n_clicks"),
        prevent_initial_call=True,
    )

    @app.callback(Output("out", "children"), Input("data", "data"), prevent_initial_call=True)
    def tell(data: Any) -> str:
        return repr(data)

    @app.callback(Output("half", "children"), Input("surrogate", "data"), prevent_initial_call=True)
    def tell_half(surrogate: str) -> str:
        return repr(surrogate)

    @app.callback(
        Output("as-state", "children"), Input("out", "children"), State("data", "data"), prevent_initial_call=True
    )
    async def compare(out: str, data: Any) -> str:
        return "the same" if repr(data) == out else repr(data)

    @app.callback(
        Output("falsy", "children"),
        Input("go", "n_clicks"),
        [State(id, "data") for id in falsy],
        prevent_initial_call=True,
    )
    def tell_falsy(_clicks: int, *values: Any) -> str:
        return json.dumps(values)
