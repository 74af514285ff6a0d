"""A callback is prepared from a plan that was made once, and its function is given exactly what Dash would give it."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from dash import ALL, MATCH, Dash, Input, NoUpdate, Output, Patch, State, ctx, hooks, html, no_update
from dash._callback_context import context_value
from dash._utils import AttributeDict
from dash.development.base_component import ComponentRegistry
from dash.exceptions import PreventUpdate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dash_quart_ws import QuartBackend
from dash_quart_ws._dash import Callbacks, app_context, is_known_helper, stringify_id, with_shortcuts
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
def requests(draw: st.DrawFn, output: str, app: Dash = app) -> dict[str, Any]:
    """What Dash's renderer sends for one of an app's callbacks."""
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


async def prepared_by_dash(body: dict[str, Any], app: Dash = app) -> tuple[Any, Any]:
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


# -------------------------------------------------------------------------- what becomes of what a function gives

answers = Dash(__name__, backend=QuartBackend(broker="memory:", login_required=False), assets_folder="none")
answers.layout = html.Div()


class Act:
    """What the functions of the app's callbacks do this time, and what they were given."""

    value: Any = None
    error: Exception | None = None
    side_update: Any = None
    imports: bool = False
    calls: list[Any]

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named, shown(context_value.get())))
        if self.side_update is not None:
            ctx.set_props("beside", {"title": self.side_update})
        if self.imports:
            ComponentRegistry.registry.add("imported_in_a_callback")
        if self.error is not None:
            raise self.error
        return self.value


act = Act()


def synchronous(*arguments: Any, **named: Any) -> Any:
    return act(*arguments, **named)


async def asynchronously(*arguments: Any, **named: Any) -> Any:
    return act(*arguments, **named)


def recovered(error: Exception) -> Any:
    """An `on_error`."""
    return None if str(error) == "nothing" else f"recovered from {error}"


def register(function: Any, name: str) -> None:
    """A callback of each kind."""
    value, again = Input("in", "value"), Input(f"again-{name}", "value")
    properties = (Output(name, f"property{number}") for number in itertools.count())
    one = functools.partial(next, properties)
    answers.callback(one(), value)(function)
    answers.callback(one(), value, State("state", "data"), on_error=recovered)(function)
    answers.callback([one()], [value])(function)
    answers.callback(one(), one(), value)(function)
    answers.callback(one(), one(), value, on_error=recovered)(function)
    answers.callback(output={"a": one(), "b": [one(), one()]}, inputs={"x": value})(function)
    answers.callback(output=[(one(), one()), one()], inputs=[(value, again)])(function)
    answers.callback(output=(one(), one()), inputs=value)(function)
    answers.callback(Output(row(ALL), name), value)(function)
    answers.callback(Output(row(ALL), f"{name}2"), one(), value)(function)
    answers.callback(Output(row(MATCH), f"{name}3"), Input(row(MATCH), "value"))(function)
    answers.callback(Output({"type": "fixed", "name": name}, "children"), value)(function)
    answers.callback(again)(function)
    answers.callback(Output("shared", "children", allow_duplicate=True), again, prevent_initial_call=True)(function)
    answers.callback(one(), value, _allow_dynamic_callbacks=True)(function)


register(synchronous, "sync")
register(asynchronously, "async")

NO_UPDATES = st.sampled_from([no_update, NoUpdate, {"_dash_no_update": "_dash_no_update"}])


def patch() -> Patch:
    made = Patch()
    made["a"] = 1
    return made


GIVEN = st.deferred(
    lambda: (
        VALUES
        | NO_UPDATES
        | st.builds(patch)
        | st.sampled_from([html.Div("child"), object(), int, 1j, float("nan"), {"b": (1, 2)}, AttributeDict(a=1)])
    )
)


@st.composite
def given_by(draw: st.DrawFn, request: dict[str, Any]) -> Any:
    """What a function may return: mostly what fits the outputs."""

    def fitting(outputs: Any) -> Any:
        if not isinstance(outputs, list) or draw(st.integers(0, 9)) == 0:
            return draw(GIVEN)
        many = [fitting(one) for one in outputs]
        if draw(st.integers(0, 9)) == 0:
            many.append(draw(GIVEN))
        return tuple(many) if draw(st.booleans()) else many

    value = fitting(request.get("outputs", []))
    if isinstance(value, list | tuple) and len(value) == 3 and draw(st.booleans()):
        first, second, third = value
        return draw(st.sampled_from([{"a": first, "b": [second, third]}, [(first, second), third], {"a": first}]))
    return value


@st.composite
def spoiled(draw: st.DrawFn, request: dict[str, Any]) -> dict[str, Any]:
    """A request that is not, or not quite, what the callback's registration says."""
    outputs = copy.deepcopy(request.get("outputs", []))
    several = outputs if isinstance(outputs, list) else [outputs]
    spoil: Any = draw(
        st.sampled_from(
            [
                lambda one: {**one, "id": "another"},
                lambda one: {**one, "property": "another"},
                lambda one: {**one, "property": f"{one['property']}@1f2e"},
                lambda one: {**one, "property": 1},
                lambda one: {"id": one["id"]},
                lambda one: {**one, "more": 1},
                lambda one: [one],
                lambda _: None,
            ]
        )
    )
    spoiled_ones = [spoil(one) if isinstance(one, dict) and draw(st.booleans()) else one for one in several]
    spoiled_ones += several[: draw(st.integers(0, 1))]
    inputs = request["inputs"][: draw(st.integers(0, 2))]
    made = spoiled_ones if isinstance(outputs, list) or len(spoiled_ones) != 1 else spoiled_ones[0]
    return {**request, "outputs": made, "inputs": inputs}


async def outcome(call: Any) -> Any:
    """The text that a wrapper gives, or what it raises; and what its function was given."""
    packages = list(ComponentRegistry.registry)
    act.calls = []
    try:
        found = call()
        found = await found if inspect.isawaitable(found) else found
    except Exception as error:  # noqa: BLE001 - what is compared
        found = type(error), re.sub(" at 0x[0-9a-f]+", "", str(error))
    finally:
        for package in set(ComponentRegistry.registry).difference(packages):
            ComponentRegistry.registry.discard(package)
    return found, act.calls


@pytest.mark.parametrize("output", sorted(answers.callback_map))
@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_function_gives_becomes_what_dash_would_make_of_it(output: str, data: st.DataObject) -> None:
    body = data.draw(requests(output, answers))
    if data.draw(st.integers(0, 4)) == 0:
        body = data.draw(spoiled(body))
    act.value = data.draw(given_by(body))
    act.error = data.draw(st.none() | st.sampled_from([PreventUpdate(), ValueError("wrong"), ValueError("nothing")]))
    act.side_update = data.draw(st.none() | st.integers(0, 1))
    act.imports = data.draw(st.integers(0, 9)) == 0

    async def run() -> None:
        server: Quart = answers.server
        async with server.test_request_context("/_dash-update-component", method="POST"):
            app_context.set(answers)
            try:
                by_dash, _ = await prepared_by_dash(copy.deepcopy(body), answers)
            except Exception:  # noqa: BLE001 - such a request reaches no wrapper
                return
            ours = Callbacks(answers, to_json).prepare(copy.deepcopy(body)).call
            assert await outcome(ours) == await outcome(by_dash)

    asyncio.run(run())


@pytest.mark.parametrize("name", ["_initialize_context", "_prepare_response"])
def test_the_installed_dash_is_one_whose_wrapper_is_known(name: str) -> None:
    assert is_known_helper(name), "another one is served too, but no faster than by Dash: see what has changed in it"


# --------------------------------------------------------------------------------------------- who calls the function


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
    assert with_shortcuts(around, to_json) is around
    assert await called("out.children", Callbacks(made, to_json)) == "around"


async def test_an_unknown_callback_is_an_error_that_names_it() -> None:
    made = an_app(lambda value: value)
    with pytest.raises(KeyError, match=r"no-such\.children"):
        await called("no-such.children", Callbacks(made, to_json))


async def test_what_another_library_has_put_into_dashs_module_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*arguments: Any) -> None:
        arguments[3]["response"] = {"out": {"children": "another's"}}

    monkeypatch.setattr("dash._callback._prepare_response", prepare)
    assert await called("out.children", Callbacks(an_app(lambda value: value), to_json)) == "another's"


async def test_a_function_is_called_by_dashs_own_wrapper_with_our_json() -> None:
    made = an_app(lambda value: value)
    wrapper = made.callback_map["out.children"]["callback"]
    copied: Any = with_shortcuts(wrapper, to_json)
    assert copied.__code__ is wrapper.__code__
    assert copied.__globals__["to_json"] is to_json
    assert inspect.unwrap(copied) is inspect.unwrap(wrapper)
