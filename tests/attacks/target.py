"""What is attacked, and what of it must never be in a log."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from itsdangerous.encoding import base64_decode

from ..server import Reply, Server, command_for, free_port, request_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

GUARDED = "tests.apps.guarded:server"
APP = "tests.attacks.app:server"
CALLBACK = "/_dash-update-component"
PAGES_OUTPUT = ".._pages_content.children..._pages_store.data.."
COOKIE = "QUART_AUTH"
MARK = "n0b0dy-l0gs-this"
"""Is in values and query strings of the attacks: whatever holds it holds one of those."""

DASH_WORKER_STOP = 4001
"""How a terminal close arrives at a client without our subprotocol."""


def sid_of(cookie: str) -> str:
    """The secret id in a token, which anybody who has the cookie can read."""
    token = cookie.partition("=")[2]
    data = base64_decode(token.removeprefix(".").partition(".")[0])
    found: str = json.loads(zlib.decompress(data) if token.startswith(".") else data)[1]
    return found


class Registry:
    """Secrets that were seen, and logs that were written, in the whole run."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {MARK: "a callback's value, or a query string"}
        self.logs: list[Path] = []

    def add(self, what: str, *secrets: str) -> None:
        for secret in secrets:
            if len(secret) >= 8:  # anything shorter is in every log by chance
                self.secrets.setdefault(secret, what)

    def add_cookie(self, cookie: str) -> None:
        """A session's cookie: the token, its signature, and the sid inside."""
        token = cookie.partition("=")[2]
        if cookie.startswith(f"{COOKIE}=") and token:
            self.add("a cookie", token)
            self.add("a cookie's signature", token.rpartition(".")[2])
            self.add("a sid", sid_of(cookie))

    def add_page_token(self, token: str) -> None:
        self.add("a page token", token, token.rpartition("~")[2])


registry = Registry()


class Target(Server):
    """A server that notes what its clients get."""

    def __init__(self, command: list[str], port: int, log: Path, env: Mapping[str, str]) -> None:
        super().__init__(command, port, log, env)
        registry.logs.append(log)
        registry.add("the secret key", env.get("SECRET_KEY", "only for tests, and long enough to be one"))

    def request(self, method: str, path: str, **options: Any) -> Reply:
        reply = super().request(method, path, **options)
        for cookie in reply.headers.get_all("Set-Cookie") or ():
            registry.add_cookie(cookie.partition(";")[0])
        for token in re.findall(r'"end_id": ?"([^"]+)"', reply.body.decode("utf-8", "replace")):
            registry.add_page_token(token)
        return reply

    def post(self, payload: Any, cookie: str | None = None, token: str | None = None, **headers: str) -> Reply:
        """A callback over HTTP, from a page with this token; without one as a script's."""
        path = CALLBACK if token is None else f"{CALLBACK}?endId={token}"
        return self.request("POST", path, cookie=cookie, body=payload, headers=headers)

    def me(self, cookie: str | None) -> Any:
        return self.get("/me", cookie).json

    def ran(self) -> list[str]:
        found: list[str] = self.get("/state").json["ran"]
        return found

    def users(self) -> list[str | None]:
        """Whose connections are open."""
        return [one["user"] for one in self.get("/state").json["connections"]]

    def events(self, since: int = 0) -> list[str]:
        """The security log from a place in the log on, without its prefix."""
        prefix = "dash_quart_ws.security:"
        return [line.partition(prefix)[2] for line in self.log[since:].splitlines() if prefix in line]


@contextlib.contextmanager
def attacked(folder: Path, app: str = APP, *, port: int | None = None, **env: str) -> Iterator[Target]:
    """A real hypercorn for one of the apps until the end of the block."""
    port = port or free_port()
    number = len(registry.logs)
    env = {"LOG_LEVEL": "INFO", **env}
    running = Target(command_for("hypercorn", app, port), port, folder / f"attacked-{number}.log", env)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def payload(output: str, value: Any = 1) -> dict[str, Any]:
    """A callback request's payload, as the renderer sends it."""
    found: dict[str, Any] = json.loads(request_message(output, value))["payload"]
    return found


def routing(pathname: Any, search: Any = "") -> dict[str, Any]:
    """What the renderer sends to the pages router."""
    location = "_pages_location"
    return {
        "output": PAGES_OUTPUT,
        "outputs": [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}],
        "inputs": [
            {"id": location, "property": "pathname", "value": pathname},
            {"id": location, "property": "search", "value": search},
        ],
        "changedPropIds": [f"{location}.pathname"],
        "state": [],
    }


def signing_in(name: str, password: str, search: str = "") -> dict[str, Any]:
    """The login page's callback."""
    return {
        "output": "..go-on.href...sign-in-error.children..",
        "outputs": [{"id": "go-on", "property": "href"}, {"id": "sign-in-error", "property": "children"}],
        "inputs": [{"id": "sign-in", "property": "n_clicks", "value": 1}],
        "changedPropIds": ["sign-in.n_clicks"],
        "state": [
            {"id": "name", "property": "value", "value": name},
            {"id": "password", "property": "value", "value": password},
            {"id": "url", "property": "search", "value": search},
            {"id": "url", "property": "hash", "value": ""},
        ],
    }


def frame(payload: Mapping[str, Any], request_id: str = "1", renderer_id: str = "tab", **changes: Any) -> str:
    """A callback request's frame."""
    message = {"type": "callback_request", "requestId": request_id, "rendererId": renderer_id, "payload": payload}
    return json.dumps({**message, **changes})


def path_of(location: str) -> str:
    return urlsplit(location).path
