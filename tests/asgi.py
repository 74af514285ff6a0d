"""A websocket to a Quart app in this process, as an ASGI server offers it: with its close code, reason and subprotocols."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quart import Quart


class Closed(Exception):  # noqa: N818 - an event
    """The app has closed the websocket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refused(Exception):  # noqa: N818 - an event
    """The app has answered the handshake with an HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class InProcessSocket:
    """Use it with `async with`: that starts the app's side, and waits for its end."""

    def __init__(
        self, app: Quart, path: str, *, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] = ()
    ) -> None:
        parts = urlsplit(path)
        sent = {"Host": "localhost", **(headers or {})}
        self._scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "subprotocols": list(subprotocols),
            "extensions": {"websocket.http.response": {}},
            "state": {},
        }
        self._app = app
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[str | Exception] = asyncio.Queue()
        self.accepted = False
        self.subprotocol: str | None = None

    async def __aenter__(self) -> Self:
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._running = asyncio.create_task(self._app(self._scope, self._to_app.get, self._send))  # type: ignore[arg-type]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1005})
        async with asyncio.timeout(10):
            await self._running

    async def _send(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "websocket.accept":
                self.accepted, self.subprotocol = True, event["subprotocol"]
            case "websocket.send":
                self._from_app.put_nowait(event["text"])
            case "websocket.close":
                self._from_app.put_nowait(Closed(event["code"], event.get("reason") or ""))
                self._to_app.put_nowait({"type": "websocket.disconnect", "code": event["code"]})  # the client's answer
            case "websocket.http.response.start":
                self._from_app.put_nowait(Refused(event["status"]))

    async def send(self, text: str | bytes) -> None:
        kind = "text" if isinstance(text, str) else "bytes"
        self._to_app.put_nowait({"type": "websocket.receive", kind: text})

    async def send_json(self, value: Any) -> None:
        await self.send(json.dumps(value))

    async def receive(self) -> str:
        """The next text frame.

        Raises:
            Closed: the app has closed instead.
            Refused: the app has not accepted.
        """
        async with asyncio.timeout(10):
            found = await self._from_app.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def receive_json(self) -> Any:
        return json.loads(await self.receive())
