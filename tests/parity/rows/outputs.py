"""What a callback may return, and what else it may set."""

from __future__ import annotations

import base64
import datetime
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import ALL, MATCH, Input, Output, Patch, State, dcc, html, no_update, set_props
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
    "`Patch` of components and of a figure, also in several outputs",
    click("go"),
    settle,
    click("go"),
    shows={"list": "onenew 1new 2", "#ul li": 3, "@graph.figure": {"data": [{"y": [1, 1, 2]}], "layout": {}}},
)
def patch_of_components(app: Dash) -> None:
    figure = {"data": [{"y": [1]}], "layout": {}}
    app.layout = [GO, html.Ul([html.Li("one")], id="list"), dcc.Graph(id="graph", figure=figure)]

    @app.callback(Output("list", "children"), Output("graph", "figure"), CLICKED, prevent_initial_call=True)
    async def grow(clicks: int) -> tuple[Patch, Patch]:
        children, figure = Patch(), Patch()
        children.append(html.Li(f"new {clicks}"))
        figure["data"][0]["y"].append(clicks)
        return children, figure


@feature(
    "`no_update`: alone, for one of several outputs, in a wildcard's list, and for all; `PreventUpdate`",
    click("go"),
    shows={"alone": "kept", "kept": "kept", "changed": "new", "all-1": "kept", "all-2": "kept", "prevented": "kept",
           '{"no":1}': "new", '{"no":2}': "kept"},
)  # fmt: skip
def keeping(app: Dash) -> None:
    names = ("alone", "kept", "changed", "all-1", "all-2", "prevented")
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

    @app.callback(Output({"no": ALL}, "children"), CLICKED, prevent_initial_call=True)
    def in_a_list(_clicks: int) -> Any:
        return ["new", no_update]

    @app.callback(Output("prevented", "children"), CLICKED, prevent_initial_call=True)
    async def prevented(_clicks: int) -> Any:
        raise PreventUpdate


@feature(
    "Several outputs: a list, a tuple, a dict, nested groups, one output in a list",
    click("go"),
    shows={"a": "list 1", "b": "list 2", "c": "tuple 1", "d": "tuple 2", "e": "dict 1", "f": "dict 2", "g": "deep 1",
           "h": "deep 2", "i": "deep 3", "j": "alone"},
)  # fmt: skip
def several_outputs(app: Dash) -> None:
    app.layout = [GO, *(html.P(id=id) for id in "abcdefghij")]
    out = {id: Output(id, "children") for id in "abcdefghij"}

    @app.callback([out["a"], out["b"]], CLICKED, prevent_initial_call=True)
    def as_list(_clicks: int) -> Any:
        return ["list 1", "list 2"]

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
            "date": "2026-01-02", "time": "2026-01-02T03:04:05", "array": [[1, 2], [3, 4]], "scalar": 1.5,
            "column": [1, 2], "stamps": ["2026-01-02T00:00:00"], "nested": {"a": [{"b": None}]},
        },
        "tree": "boldplain7",
        "#b": 1,
    },
)  # fmt: skip
def values(app: Dash) -> None:
    app.layout = [GO, dcc.Store(id="data"), html.Div(id="tree")]

    @app.callback(Output("data", "data"), Output("tree", "children"), CLICKED, prevent_initial_call=True)
    def give(_clicks: int) -> Any:
        data = {
            "none": None, "yes": True, "int": 2**53 - 1, "float": 0.1, "nan": float("nan"),
            "text": "ä€𝄞 </script> & \u2028", "date": datetime.date(2026, 1, 2),
            "time": datetime.datetime.fromisoformat("2026-01-02T03:04:05"),
            "array": np.array([[1, 2], [3, 4]]), "scalar": np.float64(1.5),
            "column": pd.Series([1, 2]), "stamps": pd.Series(pd.to_datetime(["2026-01-02"])),
            "nested": {"a": ({"b": None},)},
        }  # fmt: skip
        return data, [html.B("bold"), "plain", 7, None]


def zoom(page: Page) -> None:
    drawn = "document.querySelector('.js-plotly-plot .main-svg')?.closest('.js-plotly-plot')"
    page.wait_for(lambda: page.js(f"return window.Plotly && {drawn}?.data?.length"), "the graph")
    page.js(f"Plotly.relayout({drawn}, {{'xaxis.range': [0, 1]}})")


@feature(
    "A `go.Figure` in a `dcc.Graph`, and what its user does with it",
    click("go"),
    settle,
    zoom,
    shows={"drawn": [1, 3, 2], "zoomed": {"xaxis.range": [0, 1]}},
)
def figure(app: Dash) -> None:
    app.layout = [GO, dcc.Graph(id="graph"), dcc.Store(id="range"), html.P(id="drawn"), html.P(id="zoomed")]

    @app.callback(Output("graph", "figure"), CLICKED, prevent_initial_call=True)
    async def draw(_clicks: int) -> go.Figure:
        return go.Figure(go.Scatter(y=np.array([1, 3, 2])))

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
        y = figure["data"][0]["y"]
        drawn = np.frombuffer(base64.b64decode(y["bdata"]), y["dtype"]) if isinstance(y, dict) else y
        return json.dumps([int(one) for one in drawn]), json.dumps(data)


@feature(
    "`set_props`: one property, several at once, by a dict id, with `Patch`; from `def` and `async def`",
    click("go"),
    settle,
    click("go"),
    shows={"one": "2", '{"no":1}': "two", "@data.data": {"list": [1, 2]}, "both": "2: 2 2", "twice": "done 2"},
)
def setting_properties(app: Dash) -> None:
    app.layout = [
        GO,
        *(html.P(id=id) for id in ("one", {"no": 1}, "both", "done", "twice")),
        dcc.Store(id="data", data={"list": []}),
        dcc.Input(id="field", value="", placeholder=""),
    ]
    both = {"n": 0}

    @app.callback(Output("done", "children"), CLICKED, prevent_initial_call=True)
    def sync(clicks: int) -> str:
        set_props("one", {"children": clicks})
        set_props("field", {"value": str(clicks), "placeholder": str(clicks)})
        return f"done {clicks}"

    @app.callback(Output("twice", "children"), Input("done", "children"), prevent_initial_call=True)
    async def asynchronous(done: str) -> str:
        patch = Patch()
        patch["list"].append(int(done[-1]))
        set_props({"no": 1}, {"children": "two"})
        set_props("data", {"data": patch})
        return done

    @app.callback(
        Output("both", "children"), Input("field", "value"), Input("field", "placeholder"), prevent_initial_call=True
    )
    def observe(value: str, placeholder: str) -> str:
        both["n"] += 1
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
