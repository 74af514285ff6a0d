"""One connection's states, without any I/O: messages in, actions out.

::

    OPEN ──end()──> ENDED        (there is no way back: a session that is over does not begin again)

The shell (`connections.connection`) reads frames, asks `receive` what each message means, and does what it is told.
An ended protocol answers every message with nothing at all: after a logout not even an error is owed to anybody.

A client that has offered our subprotocol says which of its tabs are there, and for whom their pages were made::

              ┌────────────── Detach, or an Attach that is stale ──────────────┐
              v                                                                │
    NOT ATTACHED ──Attach──> the shell looks at the page token ──attached()──> ATTACHED

A callback request of a tab that is not attached never runs. Clients without the subprotocol, such as Dash's own worker,
know of no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from .messages import (
    Attach,
    CallbackFailed,
    CallbackRequest,
    Detach,
    Error,
    GetPropsRequest,
    GetPropsResponse,
    Heartbeat,
    HeartbeatAck,
    Inbound,
    Invalid,
    Outbound,
)


class State(Enum):
    """Whether messages still mean anything."""

    OPEN = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Run:
    """Start this callback; say `finished` when its outcome is known."""

    request: CallbackRequest


@dataclass(frozen=True, slots=True)
class Resolve:
    """Hand these properties to whoever asked for them under `request_id`; or say why there are none."""

    request_id: str
    props: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message. `complaint` is what the log should say about it, if anything."""

    message: Outbound
    complaint: str | None = None


@dataclass(frozen=True, slots=True)
class CheckPage:
    """Look at this page token: say `attached` when it is of the connection's session, else `detached`."""

    renderer_id: str
    page: str


@dataclass(frozen=True, slots=True)
class Drop:
    """The tab has gone: cancel what runs for it, and tell who waits for its answers."""

    renderer_id: str


Action: TypeAlias = Run | Resolve | Send | CheckPage | Drop

NOT_ATTACHED = "this tab is not attached"
"""What a request is answered with whose tab has not said for whom its page was made."""


class Protocol:
    """What one connection has been asked, has asked, and may still do.

    Request ids are the client's own names for its requests: they are only ever compared with ids of the same
    connection, so nobody can answer, or answer for, anybody else.

    Args:
        max_renderers: how many tabs may be attached at a time, to a client that has offered our subprotocol; None for
            one that has not.
    """

    __slots__ = (
        "_asked",
        "_attached",
        "_bridge",
        "_max_renderers",
        "_running",
        "close_code",
        "close_reason",
        "state",
    )

    def __init__(self, max_renderers: int | None = None) -> None:
        self.state = State.OPEN
        self.close_code: int | None = None
        self.close_reason = ""
        self._bridge = max_renderers is not None
        self._max_renderers = max_renderers or 0
        self._attached: dict[str, None] = {}  # no set: an empty one takes up three times as much as an empty dict
        self._running: dict[tuple[str, str], None] = {}
        self._asked: dict[str, str] = {}

    def receive(self, message: Inbound) -> Action | None:
        """What to do about one message; None for nothing."""
        if self.state is State.ENDED:
            return None
        match message:
            case CallbackRequest():
                return self._receive_request(message)
            case GetPropsResponse(request_id, renderer_id, props):
                if self._asked.get(request_id) != renderer_id:
                    # No complaint: after a reconnect, the answer to what the connection before had asked comes here.
                    reason = "Bad message: nothing was asked of this tab under that requestId"
                    return Send(Error(reason, request_id, renderer_id))
                del self._asked[request_id]
                return Resolve(request_id, props, message.error)
            case Attach() | Detach() if not self._bridge:
                return self._refuse("tabs are attached with our subprotocol only", None, message.renderer_id)
            case Attach(renderer_id, page):
                if renderer_id not in self._attached and len(self._attached) >= self._max_renderers:
                    return self._refuse("too many tabs on this connection", None, renderer_id)
                return CheckPage(renderer_id, page)
            case Detach(renderer_id):
                return Drop(renderer_id) if self.detached(renderer_id) else None
            case Heartbeat():
                return Send(HeartbeatAck())
            case Invalid(reason, request_id, renderer_id, is_request):
                if is_request and request_id is not None and (renderer_id or "", request_id) not in self._running:
                    # The browser waits for this request: a response of its own lets it stop waiting.
                    return Send(CallbackFailed(request_id, renderer_id or "", f"Bad request: {reason}"), reason)
                return self._refuse(reason, request_id, renderer_id)

    def _receive_request(self, request: CallbackRequest) -> Action:
        if self._bridge and request.renderer_id not in self._attached:
            return Send(CallbackFailed(request.request_id, request.renderer_id, NOT_ATTACHED), NOT_ATTACHED)
        key = (request.renderer_id, request.request_id)
        if key in self._running:
            # Not a response: that would settle the request which is still running.
            return self._refuse(
                "a request with this requestId is still running", request.request_id, request.renderer_id
            )
        self._running[key] = None
        return Run(request)

    def finished(self, request: CallbackRequest) -> None:
        """The request has its outcome; its id may be used again."""
        self._running.pop((request.renderer_id, request.request_id), None)

    def attached(self, renderer_id: str) -> None:
        """The tab's page is of the connection's session: from here on its requests run."""
        if self.state is State.OPEN:
            self._attached[renderer_id] = None

    def detached(self, renderer_id: str) -> bool:
        """The tab's requests run no more, and nobody waits for its answers. False when it was not attached."""
        if renderer_id not in self._attached:
            return False
        del self._attached[renderer_id]
        self._asked = {request_id: asked for request_id, asked in self._asked.items() if asked != renderer_id}
        return True

    def ask(self, question: GetPropsRequest) -> None:
        """Expect an answer to this question, from this tab."""
        self._asked[question.request_id] = question.renderer_id

    def forget(self, request_id: str) -> None:
        """Nobody waits for the answer to this question any more."""
        self._asked.pop(request_id, None)

    def end(self, code: int, reason: str) -> bool:
        """Nothing means anything any more. False when that was so already: the first reason stands."""
        if self.state is State.ENDED:
            return False
        self.state = State.ENDED
        self.close_code, self.close_reason = code, reason
        self._attached.clear()
        self._running.clear()
        self._asked.clear()
        return True

    @staticmethod
    def _refuse(reason: str, request_id: str | None, renderer_id: str | None) -> Send:
        return Send(Error(f"Bad message: {reason}", request_id, renderer_id), reason)
