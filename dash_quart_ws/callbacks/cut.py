"""Callbacks over the websocket that are cut short: out of time, or superseded by the same tab's next request.

Cutting one short is the same for both: whatever it still sends or returns is dropped, `ctx.websocket.is_shutdown` is true,
and its task is cancelled. An async callback sees that as CancelledError and may clean up; a thread cannot be stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from typing import TYPE_CHECKING, Any, cast

from ..exceptions import CallbackTimeout
from ..wire.messages import CallbackFailed, CallbackUnchanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..connections.renderer import Renderer
    from ..wire.messages import CallbackRequest
    from .websocket import WebsocketCallback

logger = logging.getLogger("dash_quart_ws.callbacks")


MOST_OWED = 100
"""Superseded requests of one callback that wait for the end of the last one; the oldest beyond that are answered at once."""


class Cut:
    """One running request that may be cut short. Made in its task; call `end` when that is through.

    Args:
        websocket: its `ctx.websocket`.
        timeout: seconds from now; None for no end.
        grace: seconds that it may go on cleaning up before the log names it.
    """

    def __init__(
        self,
        renderer: Renderer,
        request: CallbackRequest,
        websocket: WebsocketCallback,
        timeout: float | None,
        grace: float,
    ) -> None:
        self.made = False
        self._renderer = renderer
        self._request = request
        self._websocket = websocket
        self._grace = grace
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._owed: list[tuple[str, str]] = []
        """Requests that this one has superseded: answered when it is, so that what Dash shows while a callback runs
        (`running=`, loading states) lasts until then."""
        self._timer = None if timeout is None else self._later(timeout, self._out_of_time, timeout)

    def _later(self, seconds: float, function: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        # In a context of its own: a timer keeps its context until it is due, also when it has been cancelled.
        return asyncio.get_running_loop().call_later(seconds, function, *arguments, context=contextvars.Context())

    def supersede(self, other: Cut) -> None:
        """Take another request's place, which nobody waits for any more."""
        if not other.made:
            self._owed, other._owed = other._owed, []
            self._owed.append((other._request.request_id, other._request.renderer_id))
            while len(self._owed) > MOST_OWED:
                self._renderer.send(CallbackUnchanged(*self._owed.pop(0)))
            other._now()

    def take_back(self) -> bool:
        """After the end of the callback: whether it was cut short, and nothing else has cancelled its task."""
        return self.made and self._task.uncancel() == 0

    def end(self) -> None:
        """The callback has come to its end: settle what it owes, ahead of its own answer."""
        if self._timer is not None:
            self._timer.cancel()
        self._settle()

    def _settle(self) -> None:
        for ids in self._owed:
            self._renderer.send(CallbackUnchanged(*ids))
        self._owed = []

    def _out_of_time(self, seconds: float) -> None:
        request = self._request
        logger.warning(
            "callback %.64r took longer than %g s connection=%s request=%s",
            request.output, seconds, self._renderer.connection.id, request.request_id,
        )  # fmt: skip
        self._settle()
        error = CallbackTimeout(request.output, seconds)
        self._renderer.send(CallbackFailed(request.request_id, request.renderer_id, str(error)))
        self._now()

    def _now(self) -> None:
        self.made = True
        self._websocket.cut_short = True
        self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._later(self._grace, self._complain)

    def _complain(self) -> None:
        logger.warning(
            "callback %.64r goes on %g s after it was cut short connection=%s",
            self._request.output, self._grace, self._renderer.connection.id,
        )  # fmt: skip


def identity_of(request: CallbackRequest) -> str:
    """What two requests of one tab have in common when Dash's renderer drops the result of the older one.

    That is the callback with the components that a wildcard stands for at the moment; where `ALL` has come to stand for
    others, two requests are not taken for the same.
    """
    payload = request.payload
    named = [payload.get("outputs"), payload.get("inputs")]
    return json.dumps([request.output, _without_values(named)], sort_keys=True)


def _without_values(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_without_values(one) for one in entry]
    return [entry.get("id"), entry.get("property")] if isinstance(entry, dict) else None
