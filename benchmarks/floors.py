"""What the server underneath can do at best: a websocket that answers each message, in Quart and in bare ASGI."""

from __future__ import annotations

from typing import Any

from quart import Quart, websocket

PATH = "/_dash-ws-callback"

in_quart = Quart(__name__)


@in_quart.websocket(PATH)
async def answer() -> None:
    """JSON in, JSON out: a response of the size and shape that Dash's has."""
    while True:
        request = await websocket.receive_json()
        if request["type"] == "heartbeat":
            await websocket.send_json({"type": "heartbeat_ack"})
            continue
        value = request["payload"]["inputs"][0]["value"]
        await websocket.send_json(
            {
                "type": "callback_response",
                "rendererId": request["rendererId"],
                "requestId": request["requestId"],
                "payload": {
                    "status": "ok",
                    "data": {"multi": True, "response": {"echo": {"children": value}}},
                },
            }
        )


async def in_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Text in, text out: nobody reads it."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": '{"type":"callback_response","response":' + event["text"] + "}"})
