"""A callback is prepared from a plan that was made once, and its function is given exactly what Dash would give it."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest
from dash import ALL, MATCH, Dash, Input, Output, State, hooks, html
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_quart_ws import QuartBackend
from dash_quart_ws._dash import Callbacks, app_context, stringify_id, with_to_json
from dash_quart_ws.callbacks.serialise import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart import Quart

app = Dash(__name__, backend=QuartBackend(broker="memory:", login_required=False), assets_folder="none")
app.layout = html.Div()


def row(name: Any) -> dict[str, Any]:
    return {"type": "row", "name": name}


@app.callback(Output("one", "children"), Input("in", "value"))
def one(value: Any) -> Any:
    return value


@app.callback(Output("several", "children"), Input("in", "value"), Input("in", "title"), State("state", "data"))
def several(*values: Any) -> Any:
    return list(values)


@app.callback(
    [Output("listed", "children"), Output("listed", "title")], [Input("in", "value")], [State("state", "data")]
)
def listed(*values: Any) -> Any:
    return list(values)


@app.callback(
    output={"a": Output("dict", "children"), "b": Output("dict", "title")},
    inputs={"x": Input("in", "value"), "y": {"z": Input("in", "title")}},
    state={"w": State("state", "data")},
)
def grouped(**values: Any) -> Any:
    return {"a": list(values), "b": 1}


@app.callback(
    Output("nested", "children"), inputs=[(Input("in", "value"), Input("in", "title")), State("state", "data")]
)
def nested(*values: Any) -> Any:
    return list(values)


@app.callback(Output("all", "children"), Input(row(ALL), "value"), State("state", "data"))
def every(*values: Any) -> Any:
    return list(values)


@app.callback(Output(row(MATCH), "children"), Input(row(MATCH), "value"), Input(row(ALL), "title"))
def matching(*values: Any) -> Any:
    return list(values)


@app.callback(Output(row(ALL), "children"), Input("in", "value"))
def spread(value: Any) -> Any:
    return [value]


@app.callback(Input("in", "value"), State(row(ALL), "value"))
def without_output(*values: Any) -> None:
    assert values


@app.callback(Output("async", "children"), Input("in", "value"))
async def asynchronous(value: Any) -> Any:
    return value


@app.callback(Output("one", "children", allow_duplicate=True), Input("again", "value"), prevent_initial_call=True)
def duplicate(value: Any) -> Any:
    return value


NAMES = sorted(app.callback_map)
VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


def names_for(id: Any, count: int) -> list[Any]:
    """The ids that a page has for a dependency's id; for one with a wildcard several, or none."""
    if not isinstance(id, dict):
        return [id]
    wildcard = next((part for part in id.values() if isinstance(part, list)), None)
    if wildcard is None:
        return [id]
    found = ["m"] if wildcard == ["MATCH"] else ["a", "b", "c"][:count]
    return [{key: name if isinstance(part, list) else part for key, part in id.items()} for name in found]


@st.composite
def requests(draw: st.DrawFn, output: str) -> dict[str, Any]:
    """What Dash's renderer sends for one of the callbacks above."""
    spec = app.callback_map[output]
    prop_ids = []

    def entries(dependencies: list[dict[str, Any]], *, with_values: bool) -> list[Any]:
        made: list[Any] = []
        for dependency in dependencies:
            id = dependency["id"]
            parsed = json.loads(id) if isinstance(id, str) and id.startswith("{") else id
            found = []
            for name in names_for(parsed, draw(st.integers(0, 3))):
                entry = {"id": name, "property": dependency["property"]}
                if with_values and draw(st.booleans()):
                    entry["value"] = draw(VALUES)
                found.append(entry)
                prop_ids.append(f"{stringify_id(name)}.{dependency['property']}")
            is_many = isinstance(parsed, dict) and any(part == ["ALL"] for part in parsed.values())
            made.append(found if is_many else found[0])
        return made

    body: dict[str, Any] = {"output": output, "inputs": entries(spec["inputs"], with_values=True)}
    body["changedPropIds"] = draw(st.lists(st.sampled_from(prop_ids), max_size=3)) if prop_ids else []
    if spec["state"] or draw(st.booleans()):
        body["state"] = entries(spec["state"], with_values=True)
    outputs = spec["output"] if isinstance(spec["output"], list | tuple) else [spec["output"]]
    made = entries(
        [{"id": one.to_dict()["id"], "property": one.component_property} for one in outputs], with_values=False
    )
    body["outputs"] = made if output.startswith("..") else made[0] if made else []
    if not outputs and draw(st.booleans()):
        body["outputs"] = [{"id": "what-it-does-not-have", "property": "children"}]
    if draw(st.integers(0, 9)) == 0:
        del body["outputs"]  # as from an older renderer
    return body


async def prepared_by_dash(body: dict[str, Any]) -> tuple[Any, Any]:
    untyped: Any = app
    context = untyped._initialize_context(body)
    function = untyped._prepare_callback(context, body)
    arguments = untyped._inputs_to_vals(context.inputs_list + context.states_list)
    return untyped._execute_callback(function, arguments, context.outputs_list, context), context


def shown(context: dict[str, Any]) -> list[tuple[str, Any, list[type]]]:
    """Everything in a context, in its order, with the types of what is nested: `AttributeDict` is a `dict`, too."""

    def types(value: Any) -> list[type]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return [type(value), *(one for part in inner for one in types(part))]

    return [(key, value, types(value)) for key, value in context.items() if key != "dash_response"]


@pytest.mark.parametrize("output", NAMES)
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_callback_gets_the_arguments_and_the_context_that_dash_would_give_it(
    output: str, data: st.DataObject
) -> None:
    body = data.draw(requests(output))

    async def run() -> None:
        server: Quart = app.server
        headers = {"Cookie": "a=b; c=d", "User-Agent": "test", "Origin": "http://localhost"}
        async with server.test_request_context("/_dash-update-component?x=1&x=2", method="POST", headers=headers):
            app_context.set(app)
            call, context = await prepared_by_dash(copy.deepcopy(body))
            prepared = Callbacks(app, to_json).prepare(copy.deepcopy(body))
        ours: Any = prepared.call
        assert shown(prepared.context) == shown(context)
        assert type(prepared.context.dash_response) is type(context.dash_response)
        assert ours.args == call.args
        own, others = dict(ours.keywords), dict(call.keywords)
        assert own.pop("callback_context") is prepared.context
        others.pop("callback_context")
        assert own == others
        assert inspect.unwrap(ours.func) is inspect.unwrap(call.func)
        assert prepared.is_async == inspect.iscoroutinefunction(call.func)

    asyncio.run(run())


async def called(output: str, callbacks: Callbacks) -> Any:
    id, _, prop = output.rpartition(".")
    inputs = [{"id": "in", "property": "value", "value": 1}]
    body = {"output": output, "outputs": {"id": id, "property": prop}, "inputs": inputs, "changedPropIds": ["in.value"]}
    server: Quart = callbacks._app.server
    async with server.test_request_context("/_dash-update-component", method="POST"):
        return json.loads(str(callbacks.prepare(body).call()))["response"][id][prop]


def an_app(function: Callable[[Any], Any]) -> Dash:
    made = Dash(__name__, backend=QuartBackend(broker="memory:", login_required=False), assets_folder="none")
    made.callback(Output("out", "children"), Input("in", "value"))(function)
    return made


def test_hooks_add_their_data_to_what_a_callback_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, list[Any]] = hooks._ns
    monkeypatch.setitem(registered, "custom_data", [])
    hooks.custom_data("inputs")(lambda context: list(context.input_values.values()))

    async def run() -> Any:
        server: Quart = app.server
        inputs = [{"id": "in", "property": "value", "value": 1}]
        async with server.test_request_context("/_dash-update-component", method="POST"):
            return Callbacks(app, to_json).prepare({"output": "one.children", "inputs": inputs, "outputs": []}).context

    assert asyncio.run(run()).custom_data.inputs == [1]


async def test_a_callback_that_is_replaced_is_the_one_that_runs_from_then_on() -> None:
    made, other = an_app(lambda value: value), an_app(lambda value: [value, "replaced"])
    callbacks = Callbacks(made, to_json)
    assert await called("out.children", callbacks) == 1
    made.callback_map["out.children"]["callback"] = other.callback_map["out.children"]["callback"]
    assert await called("out.children", callbacks) == [1, "replaced"]
    made.callback_map["out.children"] = an_app(lambda value: [value, "again"]).callback_map["out.children"]
    assert await called("out.children", callbacks) == [1, "again"]


async def test_what_another_library_has_put_around_a_callback_is_what_runs() -> None:
    made = an_app(lambda value: value)
    inner = made.callback_map["out.children"]["callback"]

    @functools.wraps(inner)
    def around(*arguments: Any, **named: Any) -> str:
        return str(inner(*arguments, **named)).replace('"children":1', '"children":"around"')

    made.callback_map["out.children"]["callback"] = around
    assert with_to_json(around, to_json) is around
    assert await called("out.children", Callbacks(made, to_json)) == "around"


async def test_an_unknown_callback_is_an_error_that_names_it() -> None:
    made = an_app(lambda value: value)
    with pytest.raises(KeyError, match=r"no-such\.children"):
        await called("no-such.children", Callbacks(made, to_json))


async def test_a_function_is_called_by_dashs_own_wrapper_with_our_json() -> None:
    made = an_app(lambda value: value)
    wrapper = made.callback_map["out.children"]["callback"]
    copied: Any = with_to_json(wrapper, to_json)
    assert copied.__code__ is wrapper.__code__
    assert copied.__globals__["to_json"] is to_json
    assert inspect.unwrap(copied) is inspect.unwrap(wrapper)
