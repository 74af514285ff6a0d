"""What Dash's dev tools are told of a callback over the websocket, in debug mode: what a response tells them over HTTP."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

from werkzeug.exceptions import HTTPException

from ..wire.messages import CallbackResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._dash import Prepared
    from ..wire.messages import CallbackFailed, CallbackUnchanged

    Outcome = TypeVar("Outcome", bound=CallbackResult | CallbackUnchanged | CallbackFailed)


class Observed:
    """One callback, from now on.

    Args:
        traceback_page: makes Dash's page about an exception, which the error overlay shows.
    """

    def __init__(self, traceback_page: Callable[[Exception], str]) -> None:
        self._traceback_page = traceback_page
        self._since = time.perf_counter()
        self.error: Exception | None = None
        """What it has raised."""

    def told_with(self, outcome: Outcome, prepared: Prepared | None) -> Outcome:
        """The outcome, with what the dev tools are told: `usage`, as the callback graph counts it (milliseconds, and
        bytes of the result), and `page`, if there was an exception.

        Args:
            outcome: of the callback.
            prepared: how it was called, with what `ctx.record_timing` has measured in it; None if it could not be.
        """
        usage = {"__dash_server": round((time.perf_counter() - self._since) * 1000)}
        if prepared is not None:
            for name, measured in prepared.context.get("timing_information", {}).items():
                usage[name] = measured["dur"]
        if isinstance(outcome, CallbackResult):
            usage["__dash_download"] = len(outcome.data.encode("utf-8", "surrogatepass"))
        told: dict[str, Any] = {"usage": usage}
        if self.error is not None:
            told["page"] = self._page(self.error)
        return dataclasses.replace(outcome, devtools=json.dumps(told, default=float))

    def _page(self, error: Exception) -> str:
        """`abort(403)` and its like have a page of their own."""
        return error.get_body() if isinstance(error, HTTPException) else self._traceback_page(error)
