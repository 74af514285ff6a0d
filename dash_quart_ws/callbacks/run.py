"""One Dash callback, on the loop or in the pool: over the websocket its outcome is a message, over HTTP a response.

Async callbacks run as tasks on the event loop, synchronous ones in a thread of the pool, whichever way they came in:
one that blocks delays nobody else. In both the callback sees the request or handshake that it belongs to: Quart's and
quart-auth's context variables, and Dash's `ctx`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import secrets
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dash.exceptions import PreventUpdate, WebsocketDisconnected
from quart import abort, jsonify
from werkzeug.exceptions import HTTPException

from .._dash import Callbacks, needs_http, websocket_options
from ..connections.body import size_here
from ..exceptions import CallbackTimeout, EffectsUnavailable, TooManyCallbacks, WebsocketNeeded
from ..sessions.rights import RIGHTS, rights_here
from ..sessions.visitors import remote_here
from ..wire.close import CloseCode
from ..wire.messages import STALE_PAGE, CallbackFailed, CallbackRequest, CallbackResult, CallbackUnchanged, Outbound
from .cut import Cut, identity_of
from .devtools import Observed
from .options import options_of
from .serialise import to_json
from .websocket import WebsocketCallback, is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from dash import Dash
    from quart import Response

    from .._dash import Prepared
    from ..config import Config
    from ..connections.connection import Connection
    from ..connections.renderer import Renderer
    from ..connections.shares import Shares
    from ..sessions.guard import Guard
    from ..sessions.rights import Rights
    from ..sessions.sessions import Sessions
    from .effects import EffectsDesk
    from .options import Transport
    from .pool import Pool

logger = logging.getLogger("dash_quart_ws.callbacks")

T = TypeVar("T")


async def answer_websocket_needed(error: WebsocketNeeded) -> tuple[Response, int]:
    """The server's error handler: the log has the traceback, the browser a sentence."""
    logger.error("%s", error, exc_info=error)
    return jsonify({"error": "this callback needs the websocket, which cannot be reached"}), 500


WARNING_EVERY = 60.0
"""Seconds between two log lines about callbacks over HTTP that are one too many."""

RETRY_AFTER = 5
"""Seconds after which it is worth to ask again for a callback that was one too many."""


async def answer_too_many(error: TooManyCallbacks) -> tuple[Response, int, dict[str, str]]:
    """The server's error handler: the pool, or who holds too much in flight, has a line in the log already."""
    return jsonify({"error": str(error)}), 503, {"Retry-After": str(RETRY_AFTER)}


async def answer_timeout(error: CallbackTimeout) -> tuple[Response, int]:
    """The server's error handler."""
    logger.warning("callback %.64r took longer than %g s remote=%s", error.callback, error.seconds, remote_here())
    return jsonify({"error": str(error)}), 504


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one callback is held to; most are held to nothing."""

    timeout: float | None = None
    """Seconds."""
    yields: bool = False
    """Whether it is cut short for the next request of its tab."""
    transport: Transport = "any"


UNLIMITED = Limits()


async def contained(call: Coroutine[Any, Any, T]) -> T:
    """What an async callback gives. What it raises is an Exception, so that its request is answered: a task lets others pass,
    and SystemExit end the process.
    """
    try:
        return await call
    except (Exception, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"the callback raised {type(error).__name__}") from error


def _too_long(callback: str, limits: Limits) -> CallbackTimeout | None:
    """What is raised when a callback takes too long; None if it may take as long as it likes."""
    return None if limits.timeout is None else CallbackTimeout(callback, limits.timeout)


class Runner:
    """Runs the callbacks of one Dash app."""

    def __init__(
        self,
        app: Dash,
        pool: Callable[[], Pool],
        sessions: Sessions,
        guard: Guard,
        shares: Shares,
        effects: EffectsDesk,
        *,
        config: Config,
    ) -> None:
        self._app = app
        self._callbacks = Callbacks(app, to_json)
        self._pool = pool
        self._sessions = sessions
        self._guard = guard
        self._shares = shares
        self._effects = effects
        self._warned_at = -math.inf
        self._options = websocket_options(app)
        self._config = config
        self.traceback_page: Callable[[Exception], str] | None = None
        """In debug mode with Dash's dev tools in the page: makes the page about an exception."""
        self._limits: dict[Callable[..., Any], Limits] = {}
        self._latest: dict[tuple[Renderer, str], Cut] = {}
        """The running callbacks that the next request of the same kind cuts short."""

    def run(self, renderer: Renderer, request: CallbackRequest) -> Coroutine[Any, Any, Outbound | None]:
        """The outcome of one callback request; None if it was answered before its callback's end.

        Runs in a task of the connection, in its handshake's context.
        """
        websocket = WebsocketCallback(renderer, request, self._sessions.position)
        limits = self.limits_of(request.output)
        if limits.timeout is None and not limits.yields:
            return self._outcome(renderer, request, websocket)
        # The task is at its first step: what came earlier has been here earlier.
        cut = Cut(renderer, request, websocket, limits.timeout, self._config.cancel_timeout)
        kind = (renderer, identity_of(request)) if limits.yields else None
        if kind is not None:
            if kind in self._latest:
                cut.supersede(self._latest[kind])
            self._latest[kind] = cut
        return self._until_cut(cut, kind, self._outcome(renderer, request, websocket))

    async def _until_cut(
        self, cut: Cut, kind: tuple[Renderer, str] | None, outcome: Coroutine[Any, Any, Outbound]
    ) -> Outbound | None:
        try:
            message = await outcome
        except asyncio.CancelledError:
            if not cut.take_back():
                raise
            return None
        finally:
            cut.end()
            if kind is not None and self._latest.get(kind) is cut:
                del self._latest[kind]
        return None if cut.take_back() else message

    def limits_of(self, output: str) -> Limits:
        """What the callback is held to; nothing if there is none."""
        spec = self._app.callback_map.get(output, {})
        function = spec.get("callback")
        if function is None:
            return UNLIMITED
        limits = self._limits.get(function)
        if limits is None:
            limits = self._limits[function] = self._limits_by(spec)
        return limits

    def _limits_by(self, spec: dict[str, Any]) -> Limits:
        options = options_of(spec["callback"])
        is_persistent = spec.get("no_output") and not spec["inputs"]
        timeout = options.timeout
        if timeout == "default":
            timeout = None if is_persistent else self._config.callback_timeout
        if spec.get("background"):
            timeout = None
        return Limits(timeout, options.superseded == "cancel", "http" if needs_http(spec) else options.transport)

    async def _outcome(self, renderer: Renderer, request: CallbackRequest, websocket: WebsocketCallback) -> Outbound:
        connection = renderer.connection
        ids = (request.request_id, request.renderer_id)
        rights = rights_here()
        if rights is not None:
            await rights.read()
        if not self._sessions.may_run(connection):  # its end cancels this task
            return CallbackUnchanged(*ids)
        self._sessions.touch_for_callback(connection)
        outcome: CallbackResult | CallbackUnchanged | CallbackFailed
        observed = None if self.traceback_page is None else Observed(self.traceback_page)
        prepared = None
        try:
            prepared = self._callbacks.prepare(request.payload, websocket)
            outcome = CallbackResult(*ids, await self._call(prepared, connection.payer, rights))
        except (PreventUpdate, WebsocketDisconnected):
            outcome = CallbackUnchanged(*ids)
        except TooManyCallbacks as error:
            return CallbackFailed(*ids, str(error))
        except asyncio.CancelledError:
            if renderer.gone or websocket.cut_short:  # else nobody but the callback itself has cancelled anything
                raise
            return CallbackFailed(
                *ids, self._report(RuntimeError("the callback raised CancelledError"), connection, request)
            )
        except Exception as error:  # noqa: BLE001 - the callback is the user's: logged under an id
            outcome = CallbackFailed(*ids, self._report(error, connection, request))
            if observed is not None:
                observed.error = error
        if observed is not None:
            outcome = observed.told_with(outcome, prepared)
        if websocket.effects is None:
            return outcome
        try:
            return await self._effects.keep(renderer, websocket.effects, outcome)
        except EffectsUnavailable as error:
            return CallbackFailed(*ids, self._report(error, connection, request))

    async def over_http(self) -> Response:
        """The response to a POST to `_dash-update-component`. What the callback raises is Quart's to handle.

        Raises:
            WebsocketNeeded: it uses `ctx.websocket`, which is None here, or says that it may not come over HTTP.
            TooManyCallbacks: too many are in flight.
            CallbackTimeout: it takes too long.
        """
        with self.in_flight() as grow:
            body = await self._guard.json_body()
            grow(size_here())
            return await self._answer(body)

    @contextlib.contextmanager
    def in_flight(self) -> Iterator[Callable[[int], None]]:
        """One callback over HTTP, from here on; call what this gives with the size of its body.

        Raises:
            TooManyCallbacks: this would be one too many.
        """
        share, held = self._shares.of(self._sessions.payer()), 0

        def grow(size: int) -> None:
            nonlocal held
            held += size
            share.grow(size)

        if not share.take():
            now = time.monotonic()
            if now > self._warned_at + WARNING_EVERY:
                self._warned_at = now
                logger.warning("too many callbacks over HTTP: %d of one user remote=%s", share.count, remote_here())
            raise TooManyCallbacks
        try:
            yield grow
        finally:
            share.give_back(held)

    async def _answer(self, body: Any) -> Response:
        if not isinstance(body, dict) or not isinstance(body.get("output"), str):
            abort(400, "a callback request is a JSON object with a string as its output")
        limits = self.limits_of(body["output"])
        if limits.transport == "websocket":
            raise WebsocketNeeded(body["output"])
        prepared = self._callbacks.prepare(body)
        try:
            rights = rights_here()
            call = self._call(prepared, self._sessions.payer(), rights)
            data = await self._sessions.while_valid(call, rights, limit=_too_long(body["output"], limits))
        except AttributeError as error:
            if is_missing(error):
                raise WebsocketNeeded(body["output"]) from error
            raise
        response: Response = prepared.context.dash_response.set_response(data=data)
        return response

    def endpoint_limit(self, path: str, function: Callable[..., Any]) -> CallbackTimeout | None:
        """What is raised when a callback that is called by its `api_endpoint` takes too long."""
        return _too_long(path, self._limits_by({"callback": function, "inputs": ()}))

    def _call(self, prepared: Prepared, user: str, rights: Rights | None) -> Coroutine[Any, Any, str]:
        return self._invoke(prepared, user, None) if rights is None else self._call_with(rights, prepared, user)

    async def _call_with(self, rights: Rights, prepared: Prepared, user: str) -> str:
        await rights.read()
        prepared.context[RIGHTS] = rights.carried()
        with rights.noting():
            return await self._invoke(prepared, user, rights)

    async def _invoke(self, prepared: Prepared, user: str, rights: Rights | None) -> str:
        if prepared.is_async:
            return await contained(cast("Coroutine[Any, Any, str]", prepared.call()))
        loop = asyncio.get_running_loop()

        def call() -> Any:
            if rights is not None and not rights.is_current:  # they have changed while this waited for the thread
                rights.read_in_thread(loop)
            if rights is not None:
                # A background job runs in another process, where nobody is logged in: it is told what its user is now.
                prepared.context[RIGHTS] = rights.carried()
                self._sessions.require_proof()
            return prepared.call()

        return cast("str", await self._pool().run(user, call))

    def is_stale(self, connection: Connection, page: Any) -> bool:
        """Whether a page token is of another session than the connection's.

        If the connection is nobody's, and the page is of somebody who goes on, the connection is what has to go.
        """
        if not self._guard.is_stale(page, connection.session):
            return False
        if connection.session is None and self._guard.is_of_somebody(page):
            connection.end(CloseCode.SESSION_CHANGED, "somebody has logged in")
        return True

    def refusal(self, connection: Connection, request: CallbackRequest) -> str | None:
        """Why this request is not even tried, in words for the browser; None if it may be."""
        if self.is_stale(connection, request.payload.get("endId")):
            return STALE_PAGE
        return self._guard.refusal(connection.session, request.payload) or self._unfit(request.output)

    def _unfit(self, output: str) -> str | None:
        """Why this callback cannot run over the websocket; None if it can."""
        spec: dict[str, Any] | None = self._app.callback_map.get(output)
        if spec is None or "callback" not in spec:
            return f"There is no callback for {output[:64]!r}"
        if self.limits_of(output).transport == "http":
            return f"The callback for {output[:64]!r} runs over HTTP only"
        if not self._options.everything and not spec.get("websocket"):
            return f"The callback for {output[:64]!r} does not run over the websocket: give it websocket=True"
        return None

    def _report(self, error: Exception, connection: Connection, request: CallbackRequest) -> str:
        """Log an exception under an id, which is all that the browser may know of it.

        `abort(403)` and its like are no failure but the callback's answer, and arrive as one, as they do over HTTP.
        """
        if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
            logger.info(
                "callback %.64r answers %d %s connection=%s", request.output, error.code, error.name, connection.id
            )
            return f"{error.code} {error.name}"
        error_id = secrets.token_hex(4)
        logger.error(
            "callback %.64r failed error=%s connection=%s request=%s",
            request.output, error_id, connection.id, request.request_id, exc_info=error,
        )  # fmt: skip
        return f"Callback failed (error {error_id})"
