"""Text to messages and back. One text frame holds a message, or an array of them."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from .messages import (
    Attach,
    Attached,
    CallbackEffects,
    CallbackFailed,
    CallbackRequest,
    CallbackResult,
    CallbackUnchanged,
    Detach,
    Error,
    GetPropsRequest,
    GetPropsResponse,
    Heartbeat,
    HeartbeatAck,
    Inbound,
    Invalid,
    Outbound,
    SetProps,
    Stale,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

ID_CHARACTERS = 256
"""Longest request or renderer id that is taken; Dash's own have 36."""

ARRAY_MESSAGES = 1000
"""The longest array that is taken: of an endless one, each item would take many times its text in memory."""

NO_RENDERER = f"rendererId must be a string of 1 to {ID_CHARACTERS} characters"
"""What is wrong with a tab without a name of its own: nothing could be addressed to it."""


_ID = (str, dict)
"""What Dash's component ids are."""

_OUTPUTS = (list, dict)
"""What a request's outputs are: of several, or of one."""

MOST_OBJECTS = 250_000
"""Objects and arrays in one message, as near as counting their brackets tells: nobody else is served while they are made."""

_HEAD = re.compile(
    r'\{"type":"callback_request","rendererId":"(?P<renderer>[^"\\]{1,256})","requestId":"(?P<request>[^"\\]{1,256})",'
)
"""How a callback request of Dash's renderer begins: whoever waits for the answer to one that cannot be read is told so."""


class Decoded(NamedTuple):
    """One message with the JSON object it came from, as Dash's `websocket_message` hooks get it."""

    message: Inbound
    source: dict[str, Any] | None


def decode(text: str | bytes) -> list[Decoded]:
    """The messages of one text frame; a binary one holds none.

    Whatever is wrong comes back as `Invalid`, one for each bad item of an array.
    """
    if isinstance(text, bytes):
        return [Decoded(Invalid("a binary frame"), None)]
    if len(text) > MOST_OBJECTS and text.count("{") + text.count("[") > MOST_OBJECTS:
        return [_unreadable(text, f"more than {MOST_OBJECTS} objects and arrays")]
    try:
        value = _parse(text)
    except ValueError:
        return [Decoded(Invalid("not JSON"), None)]
    except RecursionError:
        return [_unreadable(text, "nested too deeply")]
    if isinstance(value, list):
        if len(value) > ARRAY_MESSAGES:
            return [Decoded(Invalid(f"an array of more than {ARRAY_MESSAGES} messages"), None)]
        return [_decode_item(item) for item in value] or [Decoded(Invalid("an empty array"), None)]
    return [_decode_item(value)]


def _unreadable(text: str, reason: str) -> Decoded:
    head = _HEAD.match(text)
    if head is None:
        return Decoded(Invalid(reason), None)
    return Decoded(Invalid(reason, head["request"], head["renderer"], is_request=True), None)


def _parse(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        # orjson refuses NaN and lone surrogates, which browsers' JSON.stringify and Python's json let through.
        return json.loads(text, parse_int=_parse_int)


def _parse_int(digits: str) -> int | float:
    # Python refuses to read integers of more than 4,300 digits; JavaScript reads them as infinity.
    return int(digits) if len(digits) <= 400 else float(digits)


def _decode_item(item: Any) -> Decoded:
    if not isinstance(item, dict):
        return Decoded(Invalid(f"a message must be an object, not {_kind(item)}"), None)
    return Decoded(_decode_object(item), item)


def _decode_object(item: dict[str, Any]) -> Inbound:
    kind = item.get("type")
    match kind:
        case "callback_request":
            return _callback_request(item)
        case "get_props_response":
            return _get_props_response(item)
        case "attach":
            return _attach(item)
        case "detach":
            renderer_id = _id_or_none(item, "rendererId")
            return Invalid(NO_RENDERER) if renderer_id is None else Detach(renderer_id)
        case "heartbeat":
            return Heartbeat()
    reason = f"unknown type {kind[:40]!r}" if isinstance(kind, str) else f"type must be a string, not {_kind(kind)}"
    return Invalid(reason, _id_or_none(item, "requestId"), _id_or_none(item, "rendererId"))


def _callback_request(item: dict[str, Any]) -> Inbound:
    request_id, renderer_id, payload = _id_or_none(item, "requestId"), _renderer_id(item), item.get("payload")
    if request_id is None:
        wrong = f"requestId must be a string of 1 to {ID_CHARACTERS} characters"
    elif renderer_id is None:
        wrong = f"rendererId must be a string of at most {ID_CHARACTERS} characters"
    elif not isinstance(payload, dict):
        wrong = f"payload must be an object, not {_kind(payload)}"
    else:
        wrong = _wrong_in(payload)
        if not wrong:
            return CallbackRequest(request_id, renderer_id, payload)
    return Invalid(wrong, request_id, renderer_id, is_request=True)


def _wrong_in(payload: dict[str, Any]) -> str:
    """What is wrong in the payload of a callback request; an empty text for nothing."""
    if not isinstance(payload.get("output"), str):
        return f"payload.output must be a string, not {_kind(payload.get('output'))}"
    for name in ("inputs", "state"):
        if not _are_dependencies(payload.get(name, [])):
            return f"payload.{name} must be a list of objects with id and property"
    if not isinstance(payload.get("outputs", []), _OUTPUTS):
        return f"payload.outputs must be a list or an object, not {_kind(payload['outputs'])}"
    if not _are_strings(payload.get("changedPropIds", [])):
        return "payload.changedPropIds must be a list of strings"
    return ""


def _are_dependencies(value: Any) -> bool:
    """Whether this is Dash's list of inputs or states: objects, or for wildcards lists of objects."""
    if not isinstance(value, list):
        return False
    for entry in value:
        fits = all(map(_is_dependency, entry)) if isinstance(entry, list) else _is_dependency(entry)
        if not fits:
            return False
    return True


def _is_dependency(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), _ID) and isinstance(value.get("property"), str)


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and {str}.issuperset(map(type, value))


def _get_props_response(item: dict[str, Any]) -> Inbound:
    request_id, renderer_id, props = _id_or_none(item, "requestId"), _renderer_id(item), item.get("payload")
    if request_id is None:
        return Invalid(f"requestId must be a string of 1 to {ID_CHARACTERS} characters", None, renderer_id)
    if renderer_id is None:
        return Invalid(f"rendererId must be a string of at most {ID_CHARACTERS} characters", request_id)
    if not isinstance(props, dict):
        return Invalid(f"payload must be an object, not {_kind(props)}", request_id, renderer_id)
    error = item.get("error")
    return GetPropsResponse(request_id, renderer_id, props, error[:ID_CHARACTERS] if isinstance(error, str) else None)


def _attach(item: dict[str, Any]) -> Inbound:
    renderer_id, payload = _id_or_none(item, "rendererId"), item.get("payload")
    if renderer_id is None:
        return Invalid(NO_RENDERER)
    if not isinstance(payload, dict):
        return Invalid(f"payload must be an object, not {_kind(payload)}", None, renderer_id)
    page = payload.get("page")
    if not isinstance(page, str):
        return Invalid(f"payload.page must be a string, not {_kind(page)}", None, renderer_id)
    return Attach(renderer_id, page)


def _id_or_none(item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= ID_CHARACTERS else None


def _renderer_id(item: dict[str, Any]) -> str | None:
    value = item.get("rendererId", "")
    return value if isinstance(value, str) and len(value) <= ID_CHARACTERS else None


def _kind(value: Any) -> str:
    """What JSON calls a value's type; never the value itself, which may be a secret."""
    match value:
        case None:
            return "null or missing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def encode(message: Outbound) -> str:
    """One message as JSON text. JSON that is already text (a callback's result, props) is spliced in as it is."""
    match message:
        case CallbackResult(data=data):
            return _response(message, '"ok","data":' + data)
        case CallbackUnchanged():
            return _response(message, '"prevent_update"')
        case CallbackFailed(message=text):
            return _response(message, '"error","message":' + quote(text))
        case SetProps():
            return _set_props(message)
        case CallbackEffects(outcome, id):
            return f'{encode(outcome)[:-2]},"effects":{quote(id)}}}}}'
        case GetPropsRequest(request_id, renderer_id, component_id, properties):
            names = ",".join(map(quote, properties))
            return (
                f'{{"type":"get_props_request","rendererId":{quote(renderer_id)},"requestId":{quote(request_id)},'
                f'"payload":{{"componentId":{quote(component_id)},"properties":[{names}]}}}}'
            )
        case Welcome(connection, session, max_bytes, heartbeat):
            ids = f'"connection":{quote(connection)},"session":{_quote_or_null(session)}'
            return f'{{"type":"welcome","payload":{{{ids},"maxBytes":{max_bytes},"heartbeat":{heartbeat}}}}}'
        case Attached(renderer_id, session):
            return (
                f'{{"type":"session","rendererId":{quote(renderer_id)},'
                f'"payload":{{"session":{_quote_or_null(session)}}}}}'
            )
        case Stale(renderer_id):
            return f'{{"type":"stale","rendererId":{quote(renderer_id)}}}'
        case HeartbeatAck():
            return '{"type":"heartbeat_ack"}'
        case Error(text, request_id, renderer_id):
            ids = "".join(
                f'"{name}":{quote(value)},'
                for name, value in (("rendererId", renderer_id), ("requestId", request_id))
                if value is not None
            )
            return f'{{"type":"error",{ids}"payload":{{"message":{quote(text)}}}}}'


def _set_props(message: SetProps) -> str:
    to_one = "" if message.renderer_id is None else f'"rendererId":{quote(message.renderer_id)},'
    return f'{{"type":"set_props",{to_one}"payload":{message.payload}}}'


def _response(outcome: CallbackResult | CallbackUnchanged | CallbackFailed, status: str) -> str:
    devtools = "" if outcome.devtools is None else f',"devtools":{outcome.devtools}'
    return (
        f'{{"type":"callback_response","rendererId":{quote(outcome.renderer_id)},'
        f'"requestId":{quote(outcome.request_id)},"payload":{{"status":{status}{devtools}}}}}'
    )


def quote(text: str) -> str:
    """A JSON string. Lone surrogates, which UTF-8 cannot carry, come out as escapes."""
    try:
        return orjson.dumps(text).decode()
    except TypeError:
        return json.dumps(text)


def _quote_or_null(text: str | None) -> str:
    return "null" if text is None else quote(text)


class Queued(NamedTuple):
    """One encoded message that waits to be sent."""

    text: str
    is_update: bool = False
    """Whether it is a `SetProps`."""
    tab: str | None = None
    """The tab that it goes to. None: an update of every tab, or a word about none of them, such as a heartbeat's answer."""
    sets: tuple[str, ...] | None = None
    """What an update overwrites whole: a component's id and the names of properties. None for everything else."""


def queued(message: Outbound) -> Queued:
    """Encode a message, and keep beside the text what its waiting place has to know."""
    if isinstance(message, SetProps):  # first, and by the shortest way: there are many of them
        return Queued(_set_props(message), is_update=True, tab=message.renderer_id, sets=message.sets)
    return Queued(encode(message), tab=getattr(message, "renderer_id", None))


def conflate(queue: Iterable[Queued]) -> deque[Queued]:
    """What a client needs of all that waits for it, in the same order: without the updates that are overtaken.

    An update is left out if a later one sets exactly the same properties of the same component, in the same tab (or both
    in all tabs), to whole new values, and between the two there is, for that tab, nothing but whole new values. Anything
    else that goes to a tab sees what was set before it: the answer to a callback (the renderer reads `State` when it
    comes, and a result may be a `Patch`), a question about properties, and every `Patch` (a value that it builds on may
    be inside of another component's children). An update of all tabs gives way to nothing behind such a message to any
    tab; a `Patch` in all tabs stands in the way in each.

    What stays keeps its place: the later update is never moved forward. In between its component may have been replaced,
    as a child of another one, and an update that comes too early would be lost with the old one. Nor does an update of
    two properties give way to two updates of one, or to one of three: what was set together arrives together.
    """
    kept: deque[Queued] = deque()
    overtaken: dict[str | None, set[tuple[str, ...]]] = {}
    for one in reversed(tuple(queue)):
        if one.sets is not None:
            later = overtaken.setdefault(one.tab, set())
            if one.sets in later:
                continue
            later.add(one.sets)
        elif one.tab is not None:
            overtaken.pop(one.tab, None)
            overtaken.pop(None, None)
        elif one.is_update:
            overtaken.clear()
        kept.appendleft(one)
    return kept


def take(queue: deque[Queued], *, frame_bytes: int, keeps_order: bool) -> list[Queued]:
    """Take what goes into the next text frame off a queue that is not empty.

    At most `frame_bytes` characters go together; a longer message goes alone. A client that keeps no order within an
    array (Dash's own worker delivers its `set_props` before everything else) gets no update behind anything else in one.
    """
    taken = [queue.popleft()]
    size = len(taken[0].text)
    while queue:
        following = queue[0]
        size += len(following.text) + 1
        if size > frame_bytes or (following.is_update and not taken[-1].is_update and not keeps_order):
            break
        taken.append(queue.popleft())
    return taken


def join(taken: list[Queued]) -> str:
    """One text frame: a single message as it is, several as an array."""
    return taken[0].text if len(taken) == 1 else "[" + ",".join(one.text for one in taken) + "]"
