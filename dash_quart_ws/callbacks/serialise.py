"""JSON text as Dash makes it, in less time: the same text for every value, and the same exception for what it refuses.

Dash hands a value to orjson; when orjson refuses it, because there is a figure or a component in it, plotly copies the
whole value, element by element, and orjson has the copy. A figure has been copied twice before that. Here only what
changes is copied: a list of numbers and strings, which is what a figure or a table mostly consists of, is looked at
once and goes to orjson as it is, an array without a copy. What is not known here, and whatever goes wrong, is left to
Dash's own function.
"""

from __future__ import annotations

import datetime
import sys
from collections import defaultdict
from copy import deepcopy
from functools import lru_cache
from types import NoneType
from typing import Any, Final

import orjson
from dash import Patch

from .. import _plotly
from .._dash import component_json, is_component, to_json_is_known
from .._dash import to_json as dash_json

__all__ = ["to_json"]

_PLAIN: Final = frozenset({str, int, float, bool, NoneType, datetime.datetime, datetime.date})
"""What plotly leaves to orjson. Exactly these types: any other may have a method that plotly looks for."""

_DICTS: Final = frozenset({dict, defaultdict})
"""Dash gathers a callback's outputs in the second."""

_CONTAINERS: Final = frozenset({*_DICTS, list, tuple})

# What one small message after another needs is found without an attribute.
_dumps: Final = orjson.dumps
_config: Final[Any] = _plotly.config
_OPTIONS: Final = _plotly.OPTIONS
_SWAPPED: Final = tuple((character.encode(), other.encode()) for character, other in _plotly.SWAPPED)

_is_known: Final = to_json_is_known() and _plotly.is_known()


def to_json(value: Any) -> str:
    """JSON text as Dash makes it: components, figures, numpy and pandas included.

    Raises:
        TypeError: there is no JSON for something in it. What a `to_plotly_json` raises is raised as well.
    """
    if type(value) is not dict or not _is_known or _config.default_engine == "json":
        return dash_json(value)
    try:
        data = _dumps(value, None, _OPTIONS)
    except TypeError:
        if "sage.all" in sys.modules:  # SageMath's numbers are left to plotly
            return dash_json(value)
        try:
            data = _dumps(_compatible(value), None, _OPTIONS)
        except Exception:  # noqa: BLE001 - Dash's own raises it as well, or knows better
            return dash_json(value)
    text = data.decode()
    return text if text.isascii() and not ("/" in text or "<" in text or ">" in text) else _swapped(data)


def _swapped(data: bytes) -> str:
    """What plotly writes in another way, so that its JSON may stand in a page's script; in bytes it takes half the time."""
    for character, other in _SWAPPED:
        if character in data:
            data = data.replace(character, other)
    return data.decode()


# --------------------------------------------------------------------------------------------- what orjson is given


def _compatible(value: Any) -> Any:
    """What plotly would give to orjson for this value. Shares with it what is the same."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if kind in _DICTS:
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return {key: item if type(item) in _PLAIN else _compatible(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        if _PLAIN.issuperset(map(type, value)):
            return value
        kinds = set(map(type, value))
        if any(kind in _CONTAINERS or _is_bare(kind) for kind in kinds):
            return [_compatible(item) for item in value]
        return value if _are_plain(kinds) else _plotly.compatible(value)
    return _compatible_object(kind, value) if _is_bare(kind) else _plotly.compatible(value)


def _compatible_object(kind: Any, value: Any) -> Any:
    if is_component(kind):
        return _compatible(component_json(value))
    if kind is Patch:
        return _compatible(value.to_plotly_json())
    if _plotly.is_figure(kind):
        return _figure_dict(value)
    if _plotly.is_part(kind):
        return _part_dict(value)
    return _plotly.compatible(value)


def _are_plain(kinds: set[type]) -> bool:
    """Whether plotly leaves whatever is of these classes to orjson."""
    return all(kind in _PLAIN or issubclass(kind, int | float | str) for kind in kinds)


@lru_cache(maxsize=1024)
def _is_bare(kind: Any) -> bool:
    """Whether an object has `to_plotly_json`, and nothing that plotly would look at before it."""
    return (
        hasattr(kind, "to_plotly_json")
        and not hasattr(kind, "tolist")
        and not hasattr(kind, "to_pydatetime")
        and not issubclass(kind, int | float | str | dict | list | tuple)
    )


# -------------------------------------------------------------------------------------------------------- figures


def _copy(value: Any, *, converts: bool = _plotly.CONVERTS) -> Any:
    """Plotly's deep copy of a part of a figure, its arrays converted to base64, and all of it compatible, in one pass.

    Args:
        value: the part, which is not changed.
        converts: whether arrays are converted.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return {
            key: item if type(item) in _PLAIN else _copy_property(key, item, converts=converts)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        if _PLAIN.issuperset(map(type, value)) or _are_plain(set(map(type, value))):
            return value
        return [_copy(item, converts=converts) for item in value]
    copy = deepcopy(value)
    if converts:
        _plotly.convert(copy)
    return _compatible(copy)


def _copy_property(key: Any, value: Any, *, converts: bool) -> Any:
    if not converts or _plotly.is_skipped(key):
        return _copy(value, converts=False)
    kind = type(value)
    if kind is dict or kind is list or kind is tuple or not _plotly.is_array(value):
        return _copy(value, converts=True)
    # An array of objects is a container, and a subclass may be anything.
    is_shared = kind.__module__ == "numpy" and kind.__name__ == "ndarray" and not value.dtype.hasobject
    return _compatible(_plotly.typed_array(value if is_shared else deepcopy(value)))


_figure_dict: Final = _plotly.figure_dict_with(_copy)
_part_dict: Final = _plotly.part_dict_with(lambda value: _copy(value, converts=False))
