"""What `ctx.websocket` is: the connection, as the callback that runs on it may use it."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

from dash import Patch
from dash.exceptions import WebsocketDisconnected

from .._dash import DashWebsocketCallback, given_to_set_props, stringify_id
from ..exceptions import EffectsUnavailable, NotConnected
from ..wire.close import CloseCode
from ..wire.messages import SetProps
from .effects import Effects
from .serialise import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quart import Response

    from ..connections.connection import Connection
    from ..connections.renderer import Renderer
    from ..connections.session import Session
    from ..sessions.logins import Logins
    from ..wire.messages import CallbackRequest


def props_message(renderer_id: str | None, component_id: str | Mapping[str, Any], props: Mapping[str, Any]) -> SetProps:
    """A `set_props` message for one tab, or for all (None). Its JSON is made here, once, whoever it goes to."""
    name = stringify_id(component_id)
    payload = to_json({"componentId": name, "props": dict(props)})
    for value in props.values():
        if _is_patch(value):
            return SetProps(renderer_id, payload)
    return SetProps(renderer_id, payload, (name, *props))


def _is_patch(value: Any) -> bool:
    """Whether the renderer applies this to the value that is there, instead of taking it for the new one."""
    return isinstance(value, Patch) or (isinstance(value, dict) and "__dash_patch_update" in value)


def is_missing(error: AttributeError) -> bool:
    """Whether a callback raised this because `ctx.websocket` is None over HTTP, and it went on as if it were not.

    Other things that are None have no `close` either: one of the functions on the way has to name `websocket`.
    """
    return (
        error.obj is None
        and error.name in dir(WebsocketCallback)
        and any("websocket" in frame.f_code.co_names for frame, _ in traceback.walk_tb(error.__traceback__))
    )


class WebsocketCallback(DashWebsocketCallback):
    """`ctx.websocket`: what Dash documents (`set_prop`, `get_prop`, `is_shutdown`), and whose connection it is.

    It works in async callbacks and in synchronous ones, which run in a thread.

    Args:
        renderer: the tab that called.
        request: what it has called.
        position: of the last revocation that was known then.
    """

    def __init__(self, renderer: Renderer, request: CallbackRequest, position: int = 0) -> None:
        # Dash's own __init__ takes the queues of its own implementation: nothing of it is needed here.
        self._connection = renderer.connection
        self._renderer = renderer
        self._request = request
        self._position = position
        self.effects: Effects | None = None
        """What it does to its browser, as far as anybody has looked at that; most callbacks do nothing."""
        self.cut_short = False
        """Whether its request has been answered, or superseded, before the callback's end."""

    @property
    def connection(self) -> Connection:
        """The connection that the callback came in on."""
        return self._connection

    @property
    def user(self) -> str | None:
        """The `auth_id` of the user whose session this is; None for nobody."""
        return self._connection.user

    @property
    def session(self) -> Session | None:
        """The session that the connection belongs to; None for nobody."""
        session: Session | None = self._connection.session
        return session

    @property
    def is_shutdown(self) -> bool:
        """Whether the tab that called has gone, its connection or session is over, or the callback was cut short: what it
        still does reaches nobody.
        """
        return self.cut_short or self._renderer.gone

    def gather(self) -> Effects:
        """What this callback does to its browser, from here on."""
        if self.effects is None:
            self.effects = Effects(self._position)
        return self.effects

    @property
    def logins(self) -> Logins:
        """Who the user is, in this callback."""
        return self.gather().logins

    def responds(self, response: Response) -> None:
        """`ctx.response` is used: this is what it writes to."""
        self.check_effects()
        self.gather().response = response

    def check_effects(self) -> None:
        """Whether this callback may set cookies and headers: the bridge has them set when it gets the outcome.

        Raises:
            EffectsUnavailable: it may not; the message says what to do.
        """
        if not self._connection.bridge:
            raise EffectsUnavailable(
                "this callback's websocket is Dash's own worker's, which cannot set cookies: leave out bridge=False, or let "
                "the callback come over HTTP"
            )
        if self._request.is_endless:
            raise EffectsUnavailable(
                "cookies are set when a callback is done, and one without inputs and outputs streams until its tab has "
                "gone: do it in another callback"
            )
        if not self._connection.is_running(self._request):
            raise EffectsUnavailable(
                "cookies are set with a callback's outcome, and this callback is over: do it before"
            )

    def let_out(self) -> None:
        """It is about to end its own session: its outcome goes out all the same. A stream has none."""
        if not self._request.is_endless:
            self._connection.let_out(self._request)

    def set_prop_sync(self, component_id: str | Mapping[str, Any], prop_name: str, value: Any) -> None:
        """Set one property in the tab that called, now. Never waits; `dash.set_props` uses this.

        What `dash.set_props` is given at once arrives at once, in the first of its calls: a callback with two of the
        properties as its inputs is called once, as over HTTP.
        """
        if self.is_shutdown:
            return
        props = given_to_set_props()
        if props is None:
            props = {prop_name: value}
        elif next(iter(props)) != prop_name:
            return
        self._renderer.send(props_message(self._renderer.id, component_id, props))

    async def set_prop(self, component_id: str | Mapping[str, Any], prop_name: str, value: Any) -> None:
        """The same, to be awaited."""
        self.set_prop_sync(component_id, prop_name, value)

    async def get_prop(self, component_id: str | Mapping[str, Any], prop_name: str, timeout: float = 30.0) -> Any:
        """The property's value in the tab that called; None when the component or the property is not there.

        Args:
            component_id: a component's id, also a dict.
            prop_name: one of its properties.
            timeout: seconds to wait for the browser.

        Raises:
            PropertyUnavailable: the value has more than 4 MiB: take it as a `State`, which goes over HTTP where it has to.
            WebsocketDisconnected: the tab has gone, or the connection ended, first; or the callback was cut short.
            TimeoutError: the browser did not answer in time.
        """
        name = str(stringify_id(component_id))
        if self.cut_short:
            raise WebsocketDisconnected
        try:
            async with asyncio.timeout(timeout):
                props = await self._connection.in_loop(self._renderer.ask(name, (prop_name,)))
        except NotConnected as error:
            raise WebsocketDisconnected from error
        except TimeoutError:
            raise TimeoutError(f"the browser did not send {name}.{prop_name} within {timeout:g} s") from None
        return props.get(prop_name)

    def close(self, reason: str = "", *, reconnect: bool = False) -> None:
        """End this connection, for all its tabs; this callback is cancelled with it.

        Args:
            reason: shown to the client, at most 123 bytes of it.
            reconnect: whether the client should come back by itself.
        """
        code = CloseCode.CLOSED_BY_APP_RETRY if reconnect else CloseCode.CLOSED_BY_APP
        self._connection.end_from_anywhere(code, reason)
