"""One callback over the websocket: pages, and what debug mode shows. What a callback sees is in `tests.test_backend`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.server import call, next_message, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server import Server

ROUTER = ".._pages_content.children..._pages_store.data.."


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pages"), app="tests.apps.pages:server") as server:
        yield server


def route(path: str) -> str:
    """What the renderer asks Dash's pages router."""
    inputs = [
        {"id": "_pages_location", "property": "pathname", "value": path},
        {"id": "_pages_location", "property": "search", "value": ""},
    ]
    outputs = [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}]
    payload = {"output": ROUTER, "outputs": outputs, "inputs": inputs, "changedPropIds": ["_pages_location.pathname"]}
    return json.dumps({"type": "callback_request", "requestId": "1", "rendererId": "tab", "payload": payload})


async def test_pages_are_there_when_a_workers_first_contact_is_a_websocket(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serving(tmp_path_factory.mktemp("before"), app="tests.apps.pages:server") as server:
        cookie = server.login("alice")
    with serving(tmp_path_factory.mktemp("after"), app="tests.apps.pages:server") as server:
        async with server.connect(cookie) as socket:
            await socket.send(route("/report/7"))
            answer = await next_message(socket, "callback_response")
    assert answer["payload"]["status"] == "ok", answer
    assert answer["payload"]["data"]["response"]["_pages_content"]["children"]["props"]["children"] == "report 7"


async def test_in_debug_mode_the_dev_tools_get_the_traceback_of_the_users_own_code(pages: Server) -> None:
    async with pages.connect(pages.login("alice")) as socket:
        payload = await call(socket, "out.children")
    assert payload["status"] == "error"
    assert "in fails" in payload["message"]
    assert payload["message"].rstrip().endswith("ZeroDivisionError: what went wrong")
    assert "_async_invoke_callback" not in payload["message"], "Dash's own frames are pruned"
