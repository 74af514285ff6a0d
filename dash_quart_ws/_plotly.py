"""Plotly's private names, all of them: the pieces of its `to_json_plotly` that `callbacks.serialise` is made of.

What is done faster here than by plotly is done by knowing how plotly does it. Therefore each of its functions is looked
at first: one that uses a name that is not known here, or no longer uses one that is, is left to plotly. Such a release
costs speed, and nothing else.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CONVERTS",
    "OPTIONS",
    "SWAPPED",
    "compatible",
    "config",
    "convert",
    "figure_dict_with",
    "is_array",
    "is_figure",
    "is_known",
    "is_part",
    "is_skipped",
    "names_of",
    "part_dict_with",
    "typed_array",
]


def _piece(module: str, name: str) -> Any:
    """A function or a class of plotly's; None if there is no such thing in this release."""
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def names_of(function: Any) -> frozenset[str]:
    """The global and attribute names that a function uses, with those of the functions inside it; none of a builtin."""

    def names(code: types.CodeType) -> set[str]:
        return set(code.co_names).union(*(names(part) for part in code.co_consts if isinstance(part, types.CodeType)))

    code = getattr(function, "__code__", None)
    return frozenset() if code is None else frozenset(names(code))


# ----------------------------------------------------------------------------------------------------------- text

OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
SWAPPED: Final = (("<", "\\u003c"), (">", "\\u003e"), ("/", "\\u002f"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))
"""What plotly writes in another way, so that its JSON may stand in a page's script."""

_TO_JSON: Final = frozenset(
    {
        "AttributeError", "JsonConfig", "OPT_INDENT_2", "OPT_NON_STR_KEYS", "OPT_SERIALIZE_NUMPY", "PlotlyJSONEncoder",
        "TypeError", "ValueError", "_plotly_utils.utils", "_safe", "_swap_json", "_swap_orjson",
        "clean_to_json_compatible", "config", "decode", "default_engine", "dumps", "get_module", "json",
        "to_plotly_json", "validate_orjson",
    }
)  # fmt: skip
_CLEAN: Final = frozenset(
    {
        "AttributeError", "DatetimeIndex", "Decimal", "FutureWarning", "Image", "ImageUriValidator", "NaT", "RR",
        "Series", "TypeError", "ZZ", "array", "ascontiguousarray", "catch_warnings", "clean_to_json_compatible", "core",
        "datetime", "datetime64", "datetime_as_string", "decimal", "dict", "dt", "dtype", "float", "get", "int",
        "isinstance", "isoformat", "items", "kind", "len", "list", "ma", "masked", "ndarray", "pil_image_to_uri",
        "range", "simplefilter", "str", "to_plotly_json", "to_pydatetime", "tolist", "tuple", "values", "warnings",
    }
)  # fmt: skip
_CLEAN_LATER: Final = frozenset({"NA"})
"""What newer releases use as well: it changes nothing of what is done here."""


config: Final[Any] = _piece("plotly.io.json", "config")
_to_json: Final[Any] = _piece("plotly.io._json", "to_json_plotly")
_clean: Final[Any] = _piece("plotly.io._json", "clean_to_json_compatible")


def is_known() -> bool:
    """Whether this plotly makes JSON in the way that is known here."""
    return (
        names_of(_to_json) == _TO_JSON
        and names_of(_clean) - _CLEAN_LATER == _CLEAN
        and _piece("plotly.io._json", "_swap_orjson") == SWAPPED
        and hasattr(config, "default_engine")
    )


def compatible(value: Any) -> Any:
    """A value as plotly hands it to orjson, by plotly itself."""
    modules = sys.modules
    return _clean(
        value,
        numpy_allowed=True,
        datetime_allowed=True,
        modules={
            "sage_all": None,
            "np": modules.get("numpy"),
            "pd": modules.get("pandas"),
            "image": modules.get("PIL.Image"),
        },
    )


# -------------------------------------------------------------------------------------------------------- figures

_figure_json: Final[Any] = _piece("plotly.basedatatypes", "BaseFigure.to_plotly_json")
_figure_dict: Final[Any] = _piece("plotly.basedatatypes", "BaseFigure.to_dict")
_part_json: Final[Any] = _piece("plotly.basedatatypes", "BasePlotlyType.to_plotly_json")

CONVERTS: Final = "convert_to_base64" in names_of(_figure_dict)
"""Whether a figure's arrays go in base64: since plotly 6.0."""

_TO_DICT: Final = frozenset({"deepcopy", "_data", "_layout", "_frame_objs", "_props"})
_CONVERT: Final = frozenset(
    {
        "convert_to_base64", "dict", "is_homogeneous_array", "is_skipped_key", "isinstance", "items", "list",
        "to_typed_array_spec", "tuple",
    }
)  # fmt: skip

_converters: Final[dict[str, Any]] = {
    name: _piece("_plotly_utils.utils", name)
    for name in (
        "convert_to_base64", "is_homogeneous_array", "is_skipped_key", "to_typed_array_spec",
        "copy_to_readonly_numpy_array",
    )
    if CONVERTS
}  # fmt: skip


def _knows_figures() -> bool:
    return (
        names_of(_figure_json) == {"to_dict"}
        and names_of(_figure_dict) - {"convert_to_base64"} == _TO_DICT
        and (not CONVERTS or names_of(_converters["convert_to_base64"]) == _CONVERT)
        and None not in _converters.values()
    )


_figures_are_known: Final = _knows_figures()
_parts_are_known: Final = names_of(_part_json) == {"deepcopy", "_props"}


def _are_as_they_were() -> bool:
    """Whether plotly's conversion to base64 is its own: people who want none of it put something else there."""
    if not CONVERTS:
        return True
    convert = _converters["convert_to_base64"]
    return _figure_dict.__globals__.get("convert_to_base64") is convert and all(
        convert.__globals__.get(name) is function for name, function in _converters.items()
    )


def is_figure(kind: Any) -> bool:
    """Whether a class is of plotly's figures, and its `to_plotly_json` the one that is known here."""
    return (
        _figures_are_known
        and kind.to_plotly_json is _figure_json
        and kind.to_dict is _figure_dict
        and _are_as_they_were()
    )


def is_part(kind: Any) -> bool:
    """The same for a trace, a layout, and what they consist of."""
    return _parts_are_known and kind.to_plotly_json is _part_json


def _with_names(function: Any, **names: Any) -> Any:
    """A function of plotly's that finds something else under these global names."""
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)


def figure_dict_with(copy: Callable[[Any], Any]) -> Any:
    """`to_plotly_json` of a known figure, with `copy` for its deep copies and for its conversion of arrays."""
    return _figures_are_known and _with_names(_figure_dict, deepcopy=copy, convert_to_base64=lambda _: None)


def part_dict_with(copy: Callable[[Any], Any]) -> Any:
    """`to_plotly_json` of a known trace or layout, with `copy` for its deep copies."""
    return _parts_are_known and _with_names(_part_json, deepcopy=copy)


def _array(value: Any) -> Any:
    """What plotly makes a copy of is only read: numbers need not be copied for that."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.kind not in "uif":
        return _converters["copy_to_readonly_numpy_array"](value)
    view = numpy.ascontiguousarray(value).view()
    view.flags.writeable = False
    return view


convert: Final[Any] = _converters.get("convert_to_base64")
is_array: Final[Any] = _converters.get("is_homogeneous_array")
is_skipped: Final[Any] = _converters.get("is_skipped_key") and functools.lru_cache(1024)(_converters["is_skipped_key"])
typed_array: Final[Any] = _converters.get("to_typed_array_spec") and _with_names(
    _converters["to_typed_array_spec"], copy_to_readonly_numpy_array=_array
)
