"""What a callback may return, and what else it may set."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import ALL, MATCH, Input, Output, Patch, State, ctx, dcc, html, no_update, set_props
from dash.exceptions import PreventUpdate

from ..table import click, feature, settle

if TYPE_CHECKING:
    from dash import Dash

    from ..page import Page

GO = html.Button("go", id="go")
CLICKED = Input("go", "n_clicks")


def own(what: str, no: Any) -> dict[str, Any]:
    """The id of one of many."""
    return {"is": what, "no": no}


@feature(
    "`Patch`, every operation",
    click("go"),
    shows={
        "@data.data": {
            "set": 1, "deep": {"er": {"set": 2}}, "list": [9, 0, 7, 1, 2, 5, 6], "reversed": [3, 2, 1],
            "removed": [1, 3], "cleared": [], "grown": [1, 2, 3], "merged": {"a": 1, "b": 2},
            "united": {"a": 1, "c": 3}, "plus": 11, "minus": 9, "times": 20, "over": 5,
        },
    },
)  # fmt: skip
def patch(app: Dash) -> None:
    before = {
        "set": 0, "deep": {"er": {"set": 0}}, "list": [1, 2], "reversed": [1, 2, 3], "removed": [1, 2, 3],
        "cleared": [1], "grown": [1], "merged": {"a": 1}, "united": {"a": 1}, "gone": 1,
        "plus": 10, "minus": 10, "times": 10, "over": 10,
    }  # fmt: skip
    app.layout = [GO, dcc.Store(id="data", data=before)]

    @app.callback(Output("data", "data"), CLICKED, prevent_initial_call=True)
    def change(_clicks: int) -> Patch:
        data = Patch()
        data["set"] = 1
        data.deep.er.set = 2
        data["list"].prepend(0)
        data["list"].insert(1, 7)
        data["list"].extend([5])
        data["list"].append(6)
        data["list"].prepend(9)
        data["reversed"].reverse()
        data["removed"].remove(2)
        data["cleared"].clear()
        data["grown"] += [2, 3]
        data["merged"].update({"b": 2})
        data["united"] |= {"c": 3}
        del data["gone"]
        data["plus"] += 1
        data["minus"] -= 1
        data["times"] *= 2
        data["over"] /= 2
        return data


@feature(
    "`Patch` of components and of a figure, also in several outputs and in a wildcard's list",
    click("go"),
    settle,
    click("go"),
    shows={
        "list": "first 2new 1new 2", "#ul li": 3, "@graph.figure": {"data": [{"y": [1, 1, 2]}], "layout": {}},
        '{"no":1}': "new 1new 2", '{"no":2}': "kept",
    },
)  # fmt: skip
def patch_of_components(app: Dash) -> None:
    figure = {"data": [{"y": [1]}], "layout": {}}
    app.layout = [
        GO, html.Ul([html.Li("one")], id="list"), dcc.Graph(id="graph", figure=figure),
        html.P([], id={"no": 1}), html.P("kept", id={"no": 2}),
    ]  # fmt: skip

    @app.callback(Output("list", "children"), Output("graph", "figure"), CLICKED, prevent_initial_call=True)
    async def grow(clicks: int) -> tuple[Patch, Patch]:
        children, figure = Patch(), Patch()
        children.append(html.Li(f"new {clicks}"))
        children[0]["props"]["children"] = f"first {clicks}"
        figure["data"][0]["y"].append(clicks)
        return children, figure

    @app.callback(Output({"no": ALL}, "children"), CLICKED, prevent_initial_call=True)
    def in_a_list(clicks: int) -> list[Any]:
        children = Patch()
        children.append(html.B(f"new {clicks}"))
        return [children, no_update]


@feature(
    "`no_update`: alone, for one of several outputs, in a dict, in a wildcard's list, and for all; `PreventUpdate`",
    click("go"),
    shows={"alone": "kept", "kept": "kept", "changed": "new", "all-1": "kept", "all-2": "kept", "prevented": "kept",
           "dict-kept": "kept", "dict-changed": "new", '{"no":1}': "new", '{"no":2}': "kept"},
)  # fmt: skip
def keeping(app: Dash) -> None:
    names = ("alone", "kept", "changed", "all-1", "all-2", "dict-kept", "dict-changed", "prevented")
    app.layout = [GO, *(html.P("kept", id=id) for id in (*names, {"no": 1}, {"no": 2}))]

    @app.callback(Output("alone", "children"), CLICKED, prevent_initial_call=True)
    async def alone(_clicks: int) -> Any:
        return no_update

    @app.callback(Output("kept", "children"), Output("changed", "children"), CLICKED, prevent_initial_call=True)
    def one_of_two(_clicks: int) -> Any:
        return no_update, "new"

    @app.callback(Output("all-1", "children"), Output("all-2", "children"), CLICKED, prevent_initial_call=True)
    def none_of_two(_clicks: int) -> Any:
        return no_update

    as_dict = {"kept": Output("dict-kept", "children"), "changed": Output("dict-changed", "children")}

    @app.callback(output=as_dict, inputs=[CLICKED], prevent_initial_call=True)
    def in_a_dict(_clicks: int) -> Any:
        return {"kept": no_update, "changed": "new"}

    @app.callback(Output({"no": ALL}, "children"), CLICKED, prevent_initial_call=True)
    def in_a_list(_clicks: int) -> Any:
        return ["new", no_update]

    @app.callback(Output("prevented", "children"), CLICKED, prevent_initial_call=True)
    async def prevented(_clicks: int) -> Any:
        raise PreventUpdate


@feature(
    "Several outputs: a list, a tuple, a dict, nested groups, one output in a list, two properties of one component",
    click("go"),
    shows={"a": "list 1", "a.title": "list 3", "b": "list 2", "c": "tuple 1", "d": "tuple 2", "e": "dict 1", "f": "dict 2",
           "g": "deep 1", "h": "deep 2", "i": "deep 3", "@j.children": "alone"},
)  # fmt: skip
def several_outputs(app: Dash) -> None:
    app.layout = [GO, *(html.P(id=id) for id in "abcdefghij")]
    out = {id: Output(id, "children") for id in "abcdefghij"}

    @app.callback([out["a"], out["b"], Output("a", "title")], CLICKED, prevent_initial_call=True)
    def as_list(_clicks: int) -> Any:
        return ["list 1", "list 2", "list 3"]

    @app.callback((out["c"], out["d"]), CLICKED, prevent_initial_call=True)
    async def as_tuple(_clicks: int) -> Any:
        return "tuple 1", "tuple 2"

    @app.callback(output={"one": out["e"], "two": out["f"]}, inputs=[CLICKED], prevent_initial_call=True)
    def as_dict(_clicks: int) -> Any:
        return {"one": "dict 1", "two": "dict 2"}

    nested = {"x": out["g"], "y": {"z": (out["h"], out["i"])}}

    @app.callback(output=nested, inputs=[CLICKED], prevent_initial_call=True)
    async def deep(_clicks: int) -> Any:
        return {"x": "deep 1", "y": {"z": ("deep 2", "deep 3")}}

    @app.callback([out["j"]], CLICKED, prevent_initial_call=True)
    def one_in_a_list(_clicks: int) -> Any:
        return ["alone"]


@feature(
    "Outputs with `MATCH` and `ALL`",
    click('{"is":"add","no":2}'),
    shows={
        '{"is":"sum","no":1}': "0",
        '{"is":"sum","no":2}': "1",
        '{"is":"each","no":1}': "1 of 2",
        '{"is":"each","no":2}': "2 of 2",
    },
)
def wildcard_outputs(app: Dash) -> None:
    def row(no: int) -> html.Div:
        return html.Div([html.Button(id=own("add", no)), html.P(id=own("sum", no)), html.P(id=own("each", no))])

    app.layout = [row(no) for no in (1, 2)]

    @app.callback(Output(own("sum", MATCH), "children"), Input(own("add", MATCH), "n_clicks"))
    async def add(clicks: int | None) -> int:
        return clicks or 0

    @app.callback(Output(own("each", ALL), "children"), Input(own("add", ALL), "n_clicks"))
    def each(clicks: list[int | None]) -> list[str]:
        return [f"{no} of {len(clicks)}" for no in range(1, len(clicks) + 1)]


@feature(
    '`allow_duplicate`, and `prevent_initial_call="initial_duplicate"`',
    settle,
    click("go"),
    settle,
    click("other"),
    shows={"~story": ["first at start", "second at start", "first 1", "second 1"]},
)
def duplicate_outputs(app: Dash) -> None:
    app.layout = [GO, html.Button(id="other"), html.P(id="story"), html.P(id="started")]

    @app.callback(Output("story", "children"), CLICKED)
    def first(clicks: int | None) -> str:
        return f"first {clicks or 'at start'}"

    @app.callback(Output("started", "children"), Input("story", "children"))
    def started(text: str) -> str:
        return text

    duplicate = Output("story", "children", allow_duplicate=True)

    @app.callback(
        duplicate, Input("started", "children"), State("story", "children"), prevent_initial_call="initial_duplicate"
    )
    async def second_at_start(started: str | None, story: str | None) -> Any:
        return "second at start" if started == story == "first at start" else no_update

    @app.callback(duplicate, Input("other", "n_clicks"), prevent_initial_call=True)
    def second(clicks: int) -> str:
        return f"second {clicks}"


@feature(
    "Values of every kind: numbers, text, dates, numpy, pandas, components",
    click("go"),
    shows={
        "@data.data": {
            "none": None, "yes": True, "int": 9007199254740991, "float": 0.1, "nan": None, "text": "ä€𝄞 </script> & \u2028",
            "escaped": "\"\\\n\0", "empty": [[], {}, "", 0, False], "keys": {"1": "a"},
            "date": "2026-01-02", "time": "2026-01-02T03:04:05", "zone": "2026-01-02T03:04:05+00:00",
            "decimal": 1.5, "array": [[1, 2], [3, 4]], "scalar": 1.5, "words": ["a", "b"], "truth": True, "count": 7,
            "column": [1, 2], "stamps": ["2026-01-02T00:00:00"], "records": [{"a": 1, "b": "x"}],
            "nested": {"a": [{"b": None}]},
        },
        "tree": "boldplain70deep",
        "#b": 1,
        "#div i[data-no='1'] u": 1,
    },
)  # fmt: skip
def values(app: Dash) -> None:
    app.layout = [GO, dcc.Store(id="data"), html.Div(id="tree")]

    @app.callback(Output("data", "data"), Output("tree", "children"), CLICKED, prevent_initial_call=True)
    def give(_clicks: int) -> Any:
        data = {
            "none": None, "yes": True, "int": 2**53 - 1, "float": 0.1, "nan": float("nan"),
            "text": "ä€𝄞 </script> & \u2028", "escaped": '"\\\n\0', "empty": [[], {}, "", 0, False], "keys": {1: "a"},
            "date": datetime.date(2026, 1, 2), "time": datetime.datetime.fromisoformat("2026-01-02T03:04:05"),
            "zone": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "decimal": decimal.Decimal("1.5"),
            "array": np.array([[1, 2], [3, 4]]), "scalar": np.float64(1.5), "words": np.array(["a", "b"]),
            "truth": np.bool_(True), "count": np.int64(7),
            "column": pd.Series([1, 2]), "stamps": pd.Series(pd.to_datetime(["2026-01-02"])),
            "records": pd.DataFrame({"a": [1], "b": ["x"]}).to_dict("records"), "nested": {"a": ({"b": None},)},
        }  # fmt: skip
        return data, [html.B("bold"), "plain", 7, 0, None, html.I([html.U("deep")], **{"data-no": "1"})]


def zoom(page: Page) -> None:
    drawn = "document.querySelector('.js-plotly-plot .main-svg')?.closest('.js-plotly-plot')"
    page.wait_for(lambda: page.js(f"return window.Plotly && {drawn}?.data?.length"), "the graph")
    page.js(f"Plotly.relayout({drawn}, {{'xaxis.range': [0, 1]}})")


def numbers(array: Any) -> Any:
    """Of a figure's array, as plotly sends it: since plotly 6.0 in base64."""
    if not isinstance(array, dict):
        return array
    flat = np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])
    return flat.reshape([int(length) for length in array.get("shape", "-1").split(",")]).tolist()


@feature(
    "A `go.Figure` in a `dcc.Graph`, and what its user does with it",
    click("go"),
    settle,
    zoom,
    shows={"drawn": [[0.1, 0.3, 0.2], [[1, 2], [3, 4]], ["one"], "A title"], "zoomed": {"xaxis.range": [0, 1]}},
)
def figure(app: Dash) -> None:
    app.layout = [GO, dcc.Graph(id="graph"), dcc.Store(id="range"), html.P(id="drawn"), html.P(id="zoomed")]

    @app.callback(Output("graph", "figure"), CLICKED, prevent_initial_call=True)
    async def draw(_clicks: int) -> go.Figure:
        return go.Figure(
            [
                go.Scatter(y=np.array([0.1, 0.3, 0.2])),
                go.Heatmap(z=np.array([[1, 2], [3, 4]]), xaxis="x2", yaxis="y2"),
                go.Bar(x=["one"], y=[1], xaxis="x3"),
            ],
            {"title": {"text": "A title"}, "xaxis": {"domain": [0, 0.3]}, "xaxis2": {"domain": [0.4, 0.6]}},
        )

    app.clientside_callback(
        "data => data?.['xaxis.range'] ? data : dash_clientside.no_update",  # Plotly says more, and not always the same
        Output("range", "data"),
        Input("graph", "relayoutData"),
    )

    @app.callback(
        Output("drawn", "children"), Output("zoomed", "children"),
        Input("range", "data"), State("graph", "figure"), prevent_initial_call=True,
    )  # fmt: skip
    def zoomed(data: dict[str, Any], figure: dict[str, Any]) -> tuple[str, str]:
        line, map_, bars = figure["data"]
        drawn = [numbers(line["y"]), numbers(map_["z"]), bars["x"], figure["layout"]["title"]["text"]]
        return json.dumps(drawn), json.dumps(data)


@feature(
    "`set_props`: one property, several at once, by a dict id, with `Patch`; from `def` and `async def`; `ctx.set_props`",
    click("go"),
    settle,
    click("go"),
    shows={"one": "2", '{"no":1}': "two", "@data.data": {"list": [1, 2]}, "both": "2: 2 2",
           "twice": "done 2", "by-ctx": "ctx 2", "returned": "returned 2", "last": "last 2",
           "a": "2 a", "b": "2 b", "c": "2 c"},
)  # fmt: skip
def setting_properties(app: Dash) -> None:
    app.layout = [
        GO,
        *(html.P(id=id) for id in ("one", {"no": 1}, "both", "done", "twice", "by-ctx", "returned", "last", *"abc")),
        dcc.Store(id="data", data={"list": []}),
        dcc.Input(id="field", value="", placeholder=""),
    ]

    @app.callback(Output("done", "children"), Output("returned", "children"), CLICKED, prevent_initial_call=True)
    def sync(clicks: int) -> tuple[str, str]:
        set_props("one", {"children": clicks})
        set_props("field", {"value": str(clicks), "placeholder": str(clicks)})
        ctx.set_props("by-ctx", {"children": f"ctx {clicks}"})
        set_props("returned", {"children": "set before"})
        return f"done {clicks}", f"returned {clicks}"

    @app.callback(
        Output("twice", "children"), Output("last", "children"), Input("done", "children"), prevent_initial_call=True
    )
    async def asynchronous(done: str) -> tuple[str, str]:
        clicks = int(done[-1])
        patch = Patch()
        patch["list"].append(clicks)
        set_props({"no": 1}, {"children": "two"})
        set_props("data", {"data": patch})
        for id in "abc":
            set_props(id, {"children": f"{clicks} {id}"})
        set_props("last", {"children": "set before"})
        return done, f"last {clicks}"

    @app.callback(
        Output("both", "children"), Input("field", "value"), Input("field", "placeholder"), prevent_initial_call=True
    )
    def observe(value: str, placeholder: str) -> str:
        return f"{placeholder}: {value} {placeholder}"


@feature(
    "Callbacks without an output, and what they set",
    click("go"),
    shows={"said": "1", "chained": "1 heard"},
)
def without_output(app: Dash) -> None:
    app.layout = [GO, html.P(id="said"), html.P(id="chained")]

    @app.callback(CLICKED, prevent_initial_call=True)
    def say(clicks: int) -> None:
        set_props("said", {"children": f"{clicks}"})

    @app.callback(Input("said", "children"), prevent_initial_call=True)
    async def hear(said: str) -> None:
        set_props("chained", {"children": f"{said} heard"})
