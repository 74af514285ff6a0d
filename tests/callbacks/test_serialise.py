"""The JSON of callbacks and of `set_props` is Dash's, to the letter: `to_json` of Dash's is what it is compared with."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import os
import subprocess
import sys
import types
import zoneinfo
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import plotly
import plotly.graph_objects as go
import pytest
from dash import Patch, dash_table, dcc, html, no_update
from dash._utils import AttributeDict
from dash._utils import to_json as dash_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dash_quart_ws.callbacks import serialise
from dash_quart_ws.callbacks.serialise import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

BASE64 = int(plotly.__version__.split(".")[0]) >= 6


def outcome(function: Callable[[Any], str], value: Any) -> str | type[BaseException]:
    """The text; or the exception's type."""
    try:
        return function(value)
    except Exception as error:  # noqa: BLE001 - what is compared
        return type(error)


def assert_same(value: Any) -> None:
    """Alone, and where a callback's value stands, beside a component: then plotly looks at every element."""
    for around in (value, {"a": value}, {"response": {"out": {"children": value}}, "beside": html.Br()}):
        expected = outcome(dash_json, around)
        assert outcome(to_json, around) == expected
        assert outcome(dash_json, around) == expected, "serialising has changed the value"


# ----------------------------------------------------------------------------------------------- things of all kinds


class Colour(enum.Enum):
    RED = "red"
    AMOUNT = decimal.Decimal(1)
    NOTHING = None


class Named(enum.Enum):
    ONE = 1

    def to_plotly_json(self) -> str:
        return "one"


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    HELLO = "<hello>"


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 2


@dataclasses.dataclass
class PlotlyPoint(Point):
    def to_plotly_json(self) -> Any:
        return {"x": self.x}


class Pair(NamedTuple):
    left: Any
    right: Any


class Nothing(NamedTuple):
    pass


class MyText(str):
    __slots__ = ()


class MyInt(int):
    pass


class MyFloat(float):
    pass


class MyList(list):  # type: ignore[type-arg]
    pass


class MyTuple(tuple):  # type: ignore[type-arg]
    __slots__ = ()


class MyDict(dict):  # type: ignore[type-arg]
    pass


class Upper(dict):  # type: ignore[type-arg]
    """What its `items` gives is not what is in it."""

    def items(self) -> Any:
        return [(str(key).upper(), value) for key, value in super().items()]


class Odd:
    """`to_plotly_json`, `tolist` or `to_pydatetime` give what they were told to, or raise it."""

    def __init__(self, method: str, result: Any) -> None:
        self.method, self.result = method, result

    def __getattr__(self, name: str) -> Any:
        if name == "method" or name != self.method:
            raise AttributeError(name)
        return self._call

    def _call(self) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def __deepcopy__(self, memo: Any) -> Odd:
        return self


class Json:
    def __init__(self, result: Any) -> None:
        self.result = result

    def to_plotly_json(self) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Both(Json):
    def tolist(self) -> list[Any]:
        return [self.result]


class Div(html.Div):
    """A component with a to_plotly_json of its own."""

    def to_plotly_json(self) -> Any:
        return {**super().to_plotly_json(), "own": True}


class Titled(html.Div):
    """A property that every component of the class has."""

    title = "of the class"


class Computed(html.Div):
    def __getattr__(self, name: str) -> Any:
        if name == "className":
            return "computed"
        raise AttributeError(name)


class Listed(html.Div):
    def tolist(self) -> list[str]:
        return ["a list"]


class Dated(html.Div):
    def to_pydatetime(self) -> datetime.datetime:
        return datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)


class DictDiv(html.Div, dict):  # type: ignore[type-arg]
    pass


class Number(Json):
    def __float__(self) -> float:
        return 0.5


class OwnFigure(go.Figure):
    pass


class OtherFigure(go.Figure):
    def to_dict(self) -> Any:
        return {"data": [], "own": True}


class ThirdFigure(go.Figure):
    def to_plotly_json(self) -> Any:
        return {"data": [], "third": True}


SINGLE: list[Any] = [
    *Colour, *Named, *Level, *Word, MyText("<own>"), MyInt(5), MyFloat(1.5), Point(1), Point({"a": [1]}), Nothing(),
    Point(decimal.Decimal(2)), PlotlyPoint(5), PlotlyPoint(html.Br()), Pair(1, 2), Pair(html.Br(), np.arange(3)),
    no_update, Ellipsis, object(), int, print, {1, 2}, frozenset(), range(3), iter(()), bytearray(b"a"),
    Image.new("RGB", (2, 2), "red"), float("nan"), float("-inf"), 2**63, 2**64, -(2**63) - 1,
    np.ma.masked, np.ma.array([1, 2], mask=[0, 1]), np.rec.array([(1, 2.0)]),
    np.array(5), np.array("text"), np.array(None), np.array([], dtype="f8"), np.array([[], []]),
    pd.NaT, pd.NA, pd.Timestamp("2024-05-01"), pd.Timestamp("2024-05-01", tz="Asia/Tokyo"), pd.Timedelta("1h"),
    pd.Interval(1, 2), pd.Period("2024-05"), pd.DataFrame({"a": [1, 2]}), pd.DataFrame(),
    datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone(datetime.timedelta(seconds=1))),
]  # fmt: skip

texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["</script>", "<!--", "a/b", "\u2028", "x\u2029y", "é/\u2028<", "\ud800", "\udc00/", "🎈", "\x00"]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([datetime.UTC, zoneinfo.ZoneInfo("Europe/Berlin")])),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.binary(max_size=4),
    st.complex_numbers(),
    st.fractions(),
    st.sampled_from(SINGLE),
)


def dtypes() -> Any:
    return st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        st.sampled_from(["longdouble", "U3", "S3", "M8[ns]", "M8[D]", "m8[s]", "c16"]).map(np.dtype),
        st.just(np.dtype([("a", "i4"), ("b", "f8")])),
    )


@st.composite
def arrays(draw: Any) -> Any:
    array = draw(hnp.arrays(draw(dtypes()), hnp.array_shapes(max_dims=3, max_side=3, min_side=0, min_dims=0)))
    form = draw(st.sampled_from(["as it is", "every other", "transposed", "fortran", "read-only", "one of them"]))
    if form == "every other" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    if form == "transposed":
        return array.T
    if form == "fortran":
        return np.asfortranarray(array)
    if form == "read-only":
        array.flags.writeable = False
    if form == "one of them" and array.size:
        return array.reshape(-1)[0]
    return array


def object_array(items: list[Any]) -> Any:
    array = np.empty(len(items), dtype=object)
    for position, item in enumerate(items):
        array[position] = item
    return array


def series(items: list[Any]) -> Any:
    return pd.Series(object_array(items), dtype=object)


COLUMNS: list[Any] = [
    pd.Series([1, 2, 3]), pd.Series([1.5, None]), pd.Series(["a", None, "</b>"]), pd.Series([True, False]),
    pd.Series([1, None], dtype="Int64"), pd.Series(["a", "b"], dtype="category"), pd.Series([], dtype="f8"),
    pd.Series(pd.to_datetime(["2024-05-01", None])), pd.Series(pd.date_range("2024", periods=3, tz="Asia/Tokyo")),
    pd.Series(pd.to_timedelta([1, 2], unit="s")), pd.Series([decimal.Decimal(1), "x"]), pd.Series([pd.Timestamp("2024")]),
    pd.Index([1, 2]), pd.Index(["a"]), pd.date_range("2024", periods=2), pd.date_range("2024", periods=2, tz="UTC"),
    pd.RangeIndex(3), pd.MultiIndex.from_tuples([(1, "a")]), pd.period_range("2024", periods=2, freq="M"),
    pd.array([1, 2, None], dtype="Int64"), pd.Series(np.arange(10))[::2], pd.Series(["a", "b"], dtype="string"),
]  # fmt: skip

panda_columns = st.sampled_from(COLUMNS)

keys = st.one_of(
    texts, st.integers(), st.none(), st.booleans(), st.floats(), st.dates(), st.uuids(), st.sampled_from([*Level, *Colour]),
    st.sampled_from(["geojson", "range", "layers", "x", MyText("y"), np.int64(3), (1, 2), decimal.Decimal(3), b"k"]),
)  # fmt: skip


def containers(inner: Any) -> Any:
    lists = st.lists(inner, max_size=4)
    dicts = st.dictionaries(keys, inner, max_size=3)
    props = st.dictionaries(
        st.sampled_from(["id", "className", "style", "title", "n_clicks", "data-a", "aria-b"]), inner
    )
    return st.one_of(
        lists,
        lists.map(tuple),
        lists.map(MyList),
        lists.map(MyTuple),
        lists.map(collections.deque),
        lists.map(object_array),
        lists.map(series),
        lists.map(lambda items: Pair(items, items)),
        dicts,
        dicts.map(MyDict),
        dicts.map(Upper),
        dicts.map(AttributeDict),
        dicts.map(lambda items: reordered(collections.OrderedDict(items))),
        dicts.map(lambda items: collections.defaultdict(list, items)),
        dicts.map(patched),
        inner.map(lambda item: html.Div(item)),
        st.tuples(st.sampled_from([html.Div, html.Span, Div, Titled, Computed, Listed]), props, inner).map(component),
        lists.map(lambda items: dcc.Store(id="store", data=items)),
        lists.map(lambda items: dash_table.DataTable(data=[{"a": item} for item in items])),
        st.tuples(st.sampled_from(["tolist", "to_plotly_json", "to_pydatetime"]), inner).map(lambda made: Odd(*made)),
        inner.map(Json),
        inner.map(Both),
        inner.map(Point),
        inner.map(figure_with),
    )


def figure_with(item: Any) -> Any:
    try:
        scatter = go.Scatter(customdata=[[item], item], meta=item)
        graph = dcc.Graph(figure={"data": [scatter, {"x": item}], "layout": go.Layout(meta=item)})
        return [go.Figure(scatter), graph]
    except Exception:  # noqa: BLE001 - plotly takes no such data
        return item


def reordered(items: collections.OrderedDict[Any, Any]) -> collections.OrderedDict[Any, Any]:
    """Its order is no longer that of the dict underneath."""
    if items:
        items.move_to_end(next(iter(items)))
    return items


def patched(items: dict[Any, Any]) -> Patch:
    patch = Patch()
    for key, value in items.items():
        patch["at"][str(key)] = value
    patch["list"].append(list(items.values()))
    return patch


def component(made: tuple[Any, dict[str, Any], Any]) -> Any:
    kind, props, children = made
    built = kind(children)
    for name, value in props.items():  # past Dash's checks, as an app may do
        setattr(built, name, value)
    return built


values = st.recursive(st.one_of(scalars, arrays(), panda_columns), containers, max_leaves=6)

many = settings(
    max_examples=int(os.environ.get("SERIALISE_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@many
@given(values)
@pytest.mark.filterwarnings("ignore")
def test_the_text_or_the_refusal_is_dashs_for_every_value(value: Any) -> None:
    assert_same(value)


def figure(**properties: Any) -> go.Figure:
    return go.Figure(go.Scatter(**properties), layout={"title": "a/b"})


NUMBERS = np.arange(12, dtype="f8")


class Uncopyable(Json):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("no copy")


def figures_of_uncopyable() -> list[go.Figure]:
    first, second = figure(meta={}), figure(meta={})
    first.data[0]._props["meta"]["a"] = Uncopyable(1)
    second.data[0]._props["meta"]["a"] = object_array([Uncopyable(1)])
    return [first, second]


def test_a_figure_that_cannot_be_copied_is_refused_as_dash_refuses_it() -> None:
    for made in figures_of_uncopyable():
        assert_same(made)


SPECIAL: dict[str, Callable[[], Any]] = {
    "component": lambda: component((html.Div, {"title": "a", "data-a": 1, "aria-b": html.Br()}, ["a", 1, html.Br()])),
    "component without children": html.Br,
    "component with its own method": lambda: Div("a"),
    "component with a property of its class": lambda: [Titled("a"), component((Titled, {"title": "b"}, None))],
    "component that computes a property": lambda: Computed("a"),
    "component that is a list": lambda: Listed("a"),
    "component that is a time": lambda: Dated("a"),
    "component that is a dict": lambda: DictDiv("a"),
    "line separators": lambda: ["\u2028", "\u2029", "é"],
    "component in a subclass of dict": lambda: MyDict(a=html.Br()),
    "component in a subclass of list": lambda: [MyList([html.Br()]), MyList(), MyTuple([html.Br()]), MyTuple()],
    "component in a namedtuple": lambda: Pair(html.Br(), 1),
    "dict with items of its own": lambda: Upper(a=1),
    "ordered dict": lambda: reordered(collections.OrderedDict(a=1, b=2)),
    "patch": lambda: patched({"a": html.Br(), "b": np.arange(3)}),
    "object": lambda: [Json({"a": html.Br()}), Json([]), Json("text"), Json(None)],
    "object with an AttributeError": lambda: [Json(AttributeError("inside"))],
    "object with an error": lambda: Json(ValueError("inside")),
    "object that gives an object": lambda: Json(Json(1)),
    "object that gives a component": lambda: Json(html.Br()),
    "object with a list": lambda: [Both(1), Odd("tolist", [1]), Odd("to_pydatetime", 1)],
    "object with a list of what has no JSON": lambda: Odd("tolist", [decimal.Decimal(1)]),
    "class with a to_plotly_json": lambda: Json,
    "numbers of numpy": lambda: [
        np.float64(0.1),
        np.float32(0.1),
        np.float16(0.1),
        np.int8(1),
        np.bool_(1),
        np.str_("/"),
    ],
    "numbers that are subclasses": lambda: [[MyInt(5), Level.HIGH, MyText("<"), np.float64("nan")], [MyFloat(1)]],
    "times": lambda: [np.datetime64("2024-05-01"), np.datetime64("NaT"), np.timedelta64(1, "s"), pd.NaT],
    "keys": lambda: {1: 2, None: 3, 1.5: 4, "</b>": 5, Level.HIGH: 6, datetime.date(2024, 5, 1): 7},
    "keys without JSON": lambda: {(1, 2): 3},
    "figure of arrays": lambda: figure(x=NUMBERS, y=NUMBERS.astype("i8"), customdata=NUMBERS.reshape(3, 4).T),
    "figure of every other": lambda: figure(x=NUMBERS[::2], y=NUMBERS[::-1]),
    "figure of large integers": lambda: figure(x=np.array([2**40]), y=np.array([2**63], dtype="u8")),
    "figure of small numbers": lambda: figure(x=NUMBERS.astype("f2"), y=NUMBERS.astype("u2"), ids=NUMBERS.astype("?")),
    "figure of another byte order": lambda: figure(meta=NUMBERS.astype(">f8")),
    "figure of nothing": lambda: figure(x=np.array([]), y=[], text=()),
    "figure of texts": lambda: figure(x=np.array(["a", "</b>"]), y=np.array(["a", None], dtype=object)),
    "figure of dates": lambda: figure(x=pd.date_range("2024", periods=3), y=[datetime.date(2024, 5, 1), pd.NaT]),
    "figure of objects": lambda: figure(customdata=object_array([NUMBERS, {"a": NUMBERS}, decimal.Decimal(1)])),
    "figure of lists of arrays": lambda: figure(customdata=[NUMBERS, [NUMBERS, (NUMBERS,)], {"a": NUMBERS}]),
    "figure of tuples": lambda: figure(customdata=[(1, 2), (decimal.Decimal(1), "a")]),
    "figure of dicts": lambda: figure(meta={"a": MyDict(a=NUMBERS), "b": Upper(a=NUMBERS), "c": MyList([NUMBERS])}),
    "figure of dates in a skipped key": lambda: figure(
        meta={"range": NUMBERS, "layers": {"a": NUMBERS, "b": [NUMBERS]}}
    ),
    "figure of pandas": lambda: figure(
        meta={"a": pd.Series([1, 2]), "b": pd.Index(["a"]), "c": pd.DataFrame({"a": [1]})}
    ),
    "figure with an object": lambda: figure(meta={"a": Json({"b": NUMBERS}), "range": Json(1), "c": [Json(1)]}),
    "figure with a component": lambda: figure(meta=html.Div(html.Br())),
    "figure with frames": lambda: go.Figure(go.Bar(y=[1]), frames=[go.Frame(data=[go.Bar(y=NUMBERS)], name="a")]),
    "figure with a template": lambda: go.Figure(layout={"template": "plotly_dark"}),
    "trace": lambda: {"data": [go.Scatter(y=NUMBERS, marker={"color": NUMBERS})], "layout": go.Layout(meta=NUMBERS)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SPECIAL)
def test_what_plotly_treats_specially_is_treated_so_here(name: str) -> None:
    assert_same(SPECIAL[name]())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [*SINGLE, *COLUMNS], ids=lambda value: type(value).__name__)
def test_what_has_json_has_the_same_json_alone_in_a_list_and_in_a_figure(value: Any) -> None:
    for around in (
        value,
        [value],
        (value, 1),
        MyList([value]),
        Json(value),
        Point(value),
        html.Div(value),
        figure_with(value),
    ):
        assert_same(around)


FIGURES: dict[str, Callable[[Any], Any]] = {
    "scatter": lambda a: go.Scatter(x=a, y=a, text=a, customdata=a, ids=a, meta=a),
    "marker": lambda a: go.Scattergl(y=[1], marker={"color": a, "size": a}, error_y={"array": a}, hovertext=a),
    "bar": lambda a: go.Bar(x=a, y=a, base=a, marker={"line": {"width": a}}),
    "heatmap": lambda a: go.Heatmap(z=a, x=a, text=a),
    "surface": lambda a: go.Surface(z=a, surfacecolor=a),
    "candlestick": lambda a: go.Candlestick(x=a, open=a, high=a, low=a, close=a),
    "pie": lambda a: go.Pie(labels=a, values=a, pull=a),
    "sankey": lambda a: go.Sankey(node={"label": a, "x": a}, link={"source": a, "target": a, "value": a}),
    "map": lambda a: go.Choropleth(geojson={"features": [{"x": a}], "y": a}, locations=a, z=a),
    "table": lambda a: go.Table(header={"values": a}, cells={"values": [a, a]}),
    "parallel": lambda a: go.Parcoords(dimensions=[{"values": a, "label": "a"}]),
    "image": lambda a: go.Image(z=a),
    "mesh": lambda a: go.Mesh3d(x=a, y=a, z=a, i=a, intensity=a),
}


figure_data = st.one_of(arrays(), panda_columns, st.lists(st.one_of(scalars, arrays(), st.lists(scalars)), max_size=3))


@many
@given(st.sampled_from(sorted(FIGURES)), figure_data, st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_figure_is_as_dash_sends_it(name: str, data: Any, framed: bool) -> None:
    try:
        trace = FIGURES[name](data)
        frames = [go.Frame(data=[trace], layout={"meta": data}, name="one")] if framed else []
        figure = go.Figure(trace, layout={"title": "a/b", "meta": data, "xaxis": {"range": [1, 2]}}, frames=frames)
        figures = [figure, OwnFigure(figure), OtherFigure(figure), ThirdFigure(figure)]
    except Exception:  # noqa: BLE001 - plotly takes no such data
        return
    for value in (*figures, {"data": [trace], "layout": figure.layout}):
        assert_same(value)


@pytest.fixture
def own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to Dash's own function, and no whole object to plotly's."""
    compatible = serialise._plotly.compatible

    def refuse(value: Any) -> str:
        raise AssertionError("left to Dash")

    def refuse_dicts(value: Any) -> Any:
        assert not isinstance(value, dict), "left to plotly"
        return compatible(value)

    monkeypatch.setattr(serialise, "dash_json", refuse)
    monkeypatch.setattr(serialise._plotly, "compatible", refuse_dicts)


def in_a_response(value: Any) -> dict[str, Any]:
    """As Dash's wrapper puts it together."""
    return {"multi": True, "response": collections.defaultdict(dict, out={"children": value})}


COMMON: dict[str, Callable[[], Any]] = {
    "figure of arrays": lambda: go.Figure(go.Scatter(x=np.arange(9.0), y=np.arange(9))),
    "figure of columns": lambda: figure(meta={"a": NUMBERS.reshape(3, 4).T}),
    "figure of lists": lambda: go.Figure(go.Scatter(x=[1, 2], y=[0.5, float("nan")], text=["a/b", None])),
    "figure of dates": lambda: go.Figure(go.Bar(x=pd.date_range("2024", periods=3), y=pd.Series([1, 2, 3]))),
    "figure with frames": lambda: go.Figure(go.Scatter(y=[1]), frames=[go.Frame(data=[go.Scatter(y=np.arange(3))])]),
    "trace": lambda: {"data": [go.Scatter(y=np.arange(3))], "layout": go.Layout(title="one")},
    "components": lambda: html.Div([html.H1("a", **{"data-x": "1"}), dcc.Graph(figure=go.Figure(go.Bar(y=[1])))]),
    "table": lambda: dash_table.DataTable(data=[{"a": 1, "b": np.int64(2), "c": datetime.date(2024, 5, 1)}] * 3),
    "patch": lambda: patched({"figure": go.Figure(go.Bar(y=[1])), "b": html.Br()}),
    "pandas": lambda: {"x": pd.Series([1, 2]), "y": [pd.Timestamp("2024-05-01"), pd.NaT, decimal.Decimal(1)]},
    "image": lambda: html.Img(src=Image.new("RGB", (2, 2), "red")),
    "plain": lambda: {"a": [1, "</script>", None, "\u2028"]},
}


@pytest.mark.usefixtures("own_only")
@pytest.mark.parametrize("name", COMMON)
def test_what_callbacks_mostly_return_is_not_left_to_dash(name: str) -> None:
    value = in_a_response(COMMON[name]())
    assert to_json(value) == dash_json(value)


def test_a_list_in_a_figure_is_neither_copied_nor_changed() -> None:
    numbers = [float(number) for number in range(1000)]
    figure = go.Figure(go.Scatter(x=numbers, meta={"array": np.arange(3)}))
    copies = serialise._figure_dict(figure)
    assert copies["data"][0]["x"] is figure.data[0]._props["x"]
    to_json(in_a_response(figure))
    assert figure.data[0].meta["array"] is figure.data[0]._props["meta"]["array"]
    assert isinstance(figure.data[0].meta["array"], np.ndarray)


def test_plotlys_engine_is_the_one_that_the_app_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    value = in_a_response([1, "\u2028é", float("nan"), html.Br()])
    with_orjson = to_json(value)
    monkeypatch.setattr("plotly.io.json.config.default_engine", "json")
    assert to_json(value) == dash_json(value) != with_orjson
    monkeypatch.setattr("plotly.io.json.config.default_engine", "orjson")
    assert to_json(value) == with_orjson


@pytest.mark.skipif(not BASE64, reason="this plotly sends no base64")
@pytest.mark.parametrize(
    "place",
    [
        "plotly.basedatatypes.convert_to_base64", "_plotly_utils.utils.to_typed_array_spec",
        "_plotly_utils.utils.is_skipped_key", "_plotly_utils.utils.is_homogeneous_array",
    ],
)  # fmt: skip
def test_who_switches_base64_off_in_plotly_gets_none(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = in_a_response(go.Figure(go.Scatter(y=np.arange(3))))
    assert "bdata" in to_json(value)
    switched_off: dict[str, Callable[[Any], Any]] = {"to_typed_array_spec": lambda array: array}
    name = place.rpartition(".")[2]
    monkeypatch.setattr(place, switched_off.get(name, lambda _: name == "is_skipped_key"))
    assert "bdata" not in to_json(value)
    assert to_json(value) == dash_json(value)


def test_numbers_of_sagemath_are_left_to_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    number = Number("not a number")
    monkeypatch.setitem(sys.modules, "sage.all", types.SimpleNamespace(RR=[number], ZZ=[]))
    assert to_json(in_a_response(number)) == dash_json(in_a_response(number)) == to_json(in_a_response(0.5))


def test_a_class_of_plotlys_that_is_changed_later_is_left_to_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part, own = go.Figure(go.Scatter(y=[1])), go.Scatter(y=[1]), html.Br()
    for place in (
        "plotly.basedatatypes.BaseFigure.to_dict", "plotly.basedatatypes.BaseFigure.to_plotly_json",
        "plotly.basedatatypes.BasePlotlyType.to_plotly_json", "dash.development.base_component.Component.to_plotly_json",
        "dash.Patch.to_plotly_json",
    ):  # fmt: skip
        with monkeypatch.context() as patched_class:
            patched_class.setattr(place, lambda self: {"changed": 1})
            for value in (whole, part, own, Patch()):
                assert to_json(in_a_response(value)) == dash_json(in_a_response(value))


def test_what_is_refused_raises_what_dash_raises() -> None:
    class OwnError(Exception):
        pass

    for refused in (
        object(),
        2**64,
        "\ud800",
        {1, 2},
        Json(OwnError()),
        [html.Div(b"bytes")],
        go.Figure(layout={"meta": object()}),
    ):
        with pytest.raises((TypeError, OwnError)) as ours:
            to_json(in_a_response(refused))
        with pytest.raises((TypeError, OwnError)) as dashs:
            dash_json(in_a_response(refused))
        assert ours.type is dashs.type
        assert str(ours.value) == str(dashs.value)


def test_what_is_too_deep_for_dash_is_too_deep_here() -> None:
    def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
        value: Any = "leaf"
        for _ in range(depth):
            value = wrap(value)
        return in_a_response([html.Br(), value])

    for wrap in (lambda item: [item], lambda item: {"a": item}, html.Div, lambda item: Pair(item, 1)):
        outcomes = [outcome(to_json, nested(depth, wrap)) for depth in (60, 120, 245, 250, 255, 260, 2000)]
        assert outcomes == [outcome(dash_json, nested(depth, wrap)) for depth in (60, 120, 245, 250, 255, 260, 2000)]
        assert isinstance(outcomes[0], str)
        assert not isinstance(outcomes[-1], str)


OTHER_RELEASES = [
    ("plotly.io._json", "to_json_plotly", "is written otherwise", "to_json"),
    ("plotly.io._json", "clean_to_json_compatible", "is written otherwise", "to_json"),
    ("plotly.io._json", "clean_to_json_compatible", "is called otherwise", "to_json"),
    ("plotly.io._json", "_swap_orjson", "is called otherwise", "to_json"),
    ("plotly.io._json", "_swap_orjson", "has other values", "to_json"),
    ("plotly.io.json", "config", "is called otherwise", "to_json"),
    ("dash._utils", "to_json", "is written otherwise", "to_json"),
    ("plotly.basedatatypes.BaseFigure", "to_dict", "is written otherwise", "Figure"),
    ("plotly.basedatatypes.BaseFigure", "to_dict", "is called otherwise", "Figure"),
    ("plotly.basedatatypes.BaseFigure", "to_plotly_json", "is written otherwise", "Figure"),
    ("plotly.basedatatypes.BasePlotlyType", "to_plotly_json", "is written otherwise", "Bar"),
    ("dash.development.base_component.Component", "to_plotly_json", "is written otherwise", "Div"),
    *(
        ("_plotly_utils.utils", name, "is called otherwise", "Figure")
        for name in ("convert_to_base64", "is_skipped_key", "is_homogeneous_array", "to_typed_array_spec")
        if BASE64
    ),
]

IN_ANOTHER_RELEASE = """
import json, os, pydoc, sys
import dash, dash._utils, numpy as np, plotly.graph_objects as go, plotly.io._json

def find(owner, name, change):
    owner = pydoc.locate(owner)
    original = getattr(owner, name)
    if change == "is called otherwise":
        delattr(owner, name)
    elif change == "has other values":
        setattr(owner, name, (*original, ("b", "B")))
    else:
        setattr(owner, name, lambda *args, **kwargs: original(*args, **kwargs))
    from dash_quart_ws import _plotly
    from dash_quart_ws.callbacks import serialise
    if change == "is called otherwise":  # plotly itself needs it
        setattr(owner, name, original)

    value = {"multi": True, "response": {"out": [
        go.Figure(go.Scatter(x=np.arange(3), y=[1, 2.5, None], text=["a/b"])), dash.html.Div("<b>"), dash.Patch(),
        go.Bar(y=np.arange(2)), np.float32(0.1),
    ]}}
    assert serialise.to_json(value) == dash._utils.to_json(value)
    left = []
    serialise.dash_json = lambda value: left.append("to_json")
    serialise.to_json(value)
    left += ["Figure"] * (not _plotly.is_figure(go.Figure))
    left += ["Bar"] * (not _plotly.is_part(go.Bar))
    left += ["Div"] * (not serialise.is_component(dash.html.Div))
    print(*left, flush=True)

for release in json.loads(sys.argv[1]):
    if not os.fork():
        status = 1
        try:
            find(*release)
            status = 0
        finally:
            os._exit(status)
    if os.wait()[1]:
        print("failed", *release, flush=True)
"""


def test_a_release_of_plotlys_or_dashs_that_is_not_known_costs_speed_only() -> None:
    releases = [release[:3] for release in OTHER_RELEASES]
    command = [sys.executable, "-c", IN_ANOTHER_RELEASE, json.dumps(releases)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.splitlines() == [left for *_, left in OTHER_RELEASES], run.stderr
