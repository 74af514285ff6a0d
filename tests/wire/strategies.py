"""What Hypothesis sends: text of every kind, JSON of every kind, and messages that are nearly right."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

KINDS = ("callback_request", "get_props_response", "attach", "detach", "heartbeat")

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""Every str that Python can hold, lone surrogates included."""

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(min_value=2**64) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)

IDS = st.text(st.characters(exclude_categories=()), min_size=1, max_size=256)
RENDERERS = st.text(st.characters(exclude_categories=()), max_size=256)
DEPENDENCY = st.fixed_dictionaries(
    {"id": ANY_TEXT | st.dictionaries(ANY_TEXT, ANY_JSON, max_size=2), "property": ANY_TEXT},
    optional={"value": ANY_JSON},
)
DEPENDENCIES = st.lists(DEPENDENCY | st.lists(DEPENDENCY, max_size=2), max_size=3)
PAYLOADS = st.fixed_dictionaries(
    {"output": ANY_TEXT},
    optional={
        "inputs": DEPENDENCIES,
        "state": DEPENDENCIES,
        "outputs": st.lists(ANY_JSON, max_size=2) | st.dictionaries(ANY_TEXT, ANY_JSON, max_size=2),
        "changedPropIds": st.lists(ANY_TEXT, max_size=3),
        "somethingElse": ANY_JSON,
    },
)

GOOD = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("callback_request"), "requestId": IDS, "rendererId": RENDERERS, "payload": PAYLOADS},
        optional={"unknown": ANY_JSON},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("get_props_response"),
            "requestId": IDS,
            "rendererId": RENDERERS,
            "payload": st.dictionaries(ANY_TEXT, ANY_JSON, max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("attach"),
            "rendererId": IDS,
            "payload": st.fixed_dictionaries({"page": ANY_TEXT}, optional={"unknown": ANY_JSON}),
        }
    ),
    st.fixed_dictionaries({"type": st.just("detach"), "rendererId": IDS}, optional={"unknown": ANY_JSON}),
    st.fixed_dictionaries({"type": st.just("heartbeat")}, optional={"unknown": ANY_JSON}),
)
"""JSON objects that are messages of this protocol."""

NEARLY = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | ANY_JSON},
    optional={
        "requestId": IDS | ANY_JSON,
        "rendererId": RENDERERS | ANY_JSON,
        "payload": PAYLOADS
        | ANY_JSON
        | st.dictionaries(
            st.sampled_from(["output", "outputs", "inputs", "state", "changedPropIds", "page"]), ANY_JSON
        ),
    },
)
"""Objects with the right names and anything at all in them."""

BAD = st.one_of(
    ANY_JSON.filter(lambda value: not isinstance(value, dict)),
    st.fixed_dictionaries({"type": st.just("callback_request"), "requestId": st.integers() | st.lists(st.none())}),
    st.fixed_dictionaries({"type": ANY_JSON.filter(lambda kind: kind not in KINDS)}),
)
"""Items of an array that are no messages."""


def as_text(value: Any) -> str:
    return json.dumps(value)
