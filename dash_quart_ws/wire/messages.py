"""One frozen dataclass per message. The shapes are Dash's own, so Dash's own worker still works against this server.

`Attach`, `Detach`, `Welcome`, `Attached`, `Stale`, `CallbackEffects` and a `SetProps` without a renderer are ours: they
travel only where the client has offered our subprotocol.
"""

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

    @property
    def is_endless(self) -> bool:
        """Whether it is one without outputs and inputs, as Dash's persistent ones are: nothing waits for its answer."""
        return not self.payload.get("outputs") and not self.payload.get("inputs")


@dataclass(frozen=True, slots=True)
class GetPropsResponse:
    """A tab's answer to a `GetPropsRequest`: property name -> value; or why there is none."""

    request_id: str
    renderer_id: str
    props: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Attach:
    """A tab is here. `page` is the page token that its page was made with: it says for which session."""

    renderer_id: str
    page: str


@dataclass(frozen=True, slots=True)
class Detach:
    """A tab has gone."""

    renderer_id: str


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


Inbound: TypeAlias = CallbackRequest | GetPropsResponse | Attach | Detach | Heartbeat | Invalid

# ------------------------------------------------------------------------------------------------ to the browser


@dataclass(frozen=True, slots=True)
class CallbackResult:
    """A callback's outcome. `data` is the JSON text that Dash's wrapper returned: spliced in, never parsed again.

    `devtools`, here and below: JSON text for the page's dev tools, in debug mode only.
    """

    request_id: str
    renderer_id: str
    data: str
    devtools: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackUnchanged:
    """The callback raised `PreventUpdate`."""

    request_id: str
    renderer_id: str
    devtools: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackFailed:
    """The callback could not run, or raised; `message` is fit for the browser's eyes."""

    request_id: str
    renderer_id: str
    message: str
    devtools: str | None = None


@dataclass(frozen=True, slots=True)
class CallbackEffects:
    """An outcome, and the id of what the callback has done to the browser's cookies.

    The client posts the id to `_dash-quart-ws/effects`, once, and shows the outcome when that is answered.
    """

    outcome: CallbackResult | CallbackUnchanged | CallbackFailed
    id: str

    @property
    def renderer_id(self) -> str:
        """The tab that it goes to."""
        return self.outcome.renderer_id


@dataclass(frozen=True, slots=True)
class SetProps:
    """Set properties of one component of one tab. `payload` is JSON text: `{"componentId": …, "props": {…}}`.

    `renderer_id` None: of every tab that is attached; the client fans it out. `sets`: the component's id and the names of
    its properties, if each gets a whole new value; None if one is a `Patch`, which builds on the value before.
    """

    renderer_id: str | None
    payload: str
    sets: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GetPropsRequest:
    """Ask one tab for properties of one component."""

    request_id: str
    renderer_id: str
    component_id: str
    properties: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """The first message: the connection's public id, its session's (None for nobody), and what the client should keep to.

    `max_bytes` is the largest request that it should send here, `heartbeat` the milliseconds between two heartbeats; 0 for
    none.
    """

    connection: str
    session: str | None
    max_bytes: int
    heartbeat: float


@dataclass(frozen=True, slots=True)
class Attached:
    """The tab is attached: its page belongs to this session, the connection's (None for nobody)."""

    renderer_id: str
    session: str | None


@dataclass(frozen=True, slots=True)
class Stale:
    """The tab is not attached: its page belongs to another session."""

    renderer_id: str


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
    CallbackResult
    | CallbackUnchanged
    | CallbackFailed
    | CallbackEffects
    | SetProps
    | GetPropsRequest
    | Welcome
    | Attached
    | Stale
    | HeartbeatAck
    | Error
)
