"""One frozen dataclass per message. The shapes are Dash's own, so Dash's own worker still works against this server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

STALE_PAGE = "stale page"
"""What a request is answered with that comes from a page of another session; our page script loads that page anew."""

# ---------------------------------------------------------------------------------------------- from the browser


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """Run a callback. `payload` is what the renderer also posts to `_dash-update-component`."""

    request_id: str
    renderer_id: str
    payload: dict[str, Any]

    @property
    def output(self) -> str:
        """The callback's id in `callback_map`."""
        output: str = self.payload["output"]
        return output


@dataclass(frozen=True, slots=True)
class GetPropsResponse:
    """A tab's answer to a `GetPropsRequest`: property name -> value."""

    request_id: str
    renderer_id: str
    props: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The client asks whether anybody is there."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """Something that is no message of this protocol; it hurts nothing but itself.

    `reason` names the field. `request_id` is there when one could be read, `is_request` when a callback was asked for:
    then the answer settles that request in the browser.
    """

    reason: str
    request_id: str | None = None
    renderer_id: str | None = None
    is_request: bool = False


Inbound: TypeAlias = CallbackRequest | GetPropsResponse | Heartbeat | Invalid

# ------------------------------------------------------------------------------------------------ to the browser


@dataclass(frozen=True, slots=True)
class CallbackResult:
    """A callback's outcome. `data` is the JSON text that Dash's wrapper returned: spliced in, never parsed again."""

    request_id: str
    renderer_id: str
    data: str


@dataclass(frozen=True, slots=True)
class CallbackUnchanged:
    """The callback raised `PreventUpdate`."""

    request_id: str
    renderer_id: str


@dataclass(frozen=True, slots=True)
class CallbackFailed:
    """The callback could not run, or raised; `message` is fit for the browser's eyes."""

    request_id: str
    renderer_id: str
    message: str


@dataclass(frozen=True, slots=True)
class SetProps:
    """Set properties of one component of one tab. `payload` is JSON text: `{"componentId": …, "props": {…}}`."""

    renderer_id: str
    payload: str


@dataclass(frozen=True, slots=True)
class GetPropsRequest:
    """Ask one tab for properties of one component."""

    request_id: str
    renderer_id: str
    component_id: str
    properties: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeartbeatAck:
    """Somebody is here."""


@dataclass(frozen=True, slots=True)
class Error:
    """What was sent could not be used. The connection, and everything else on it, goes on."""

    message: str
    request_id: str | None = None
    renderer_id: str | None = None


Outbound: TypeAlias = (
    CallbackResult | CallbackUnchanged | CallbackFailed | SetProps | GetPropsRequest | HeartbeatAck | Error
)
