"""Login protection of Dash's own routes.

Default deny: every rule that Dash registers needs a login, but for a short list of those that hold nothing of anybody.
Pages send a visitor to the login, data routes answer 401.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlsplit

from quart import current_app, jsonify, make_response, redirect, request
from quart_auth import current_user
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart import Quart, Response

    from ..config import Config
    from .sessions import Sessions

security = logging.getLogger("dash_quart_ws.security")

OPEN_RULES = (
    "_dash-component-suites/<string:package_name>/<path:fingerprinted_path>",
    "_favicon.ico",
    "_reload-hash",
)
"""Rules below an app's prefix that need no login: code from packages, an icon, and a hash that changes with the code."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


class Guard:
    """Wraps the views of one Dash app."""

    def __init__(self, server: Quart, sessions: Sessions, config: Config, pages: set[str]) -> None:
        self._server = server
        self._sessions = sessions
        self._config = config
        self._pages = pages
        """Endpoints of Dash's pages, of every app on the server."""

    @property
    def active(self) -> bool:
        """Whether visitors need a login."""
        return self._config.login_required is not False and self._sessions.active

    def page(self, endpoint: str, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """A view that answers with a page: without a login it leads there."""
        self._pages.add(endpoint)
        return self._wrap(view, self._to_login)

    def data(self, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """A view that answers a script: without a login it is 401."""
        return self._wrap(view, self._unauthorized)

    def _wrap(
        self, view: Callable[..., Any], refuse: Callable[[], Awaitable[Response]]
    ) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return await current_app.ensure_async(view)(*args, **kwargs)
            # The user class may know better than the token: an account that is gone, a second factor that is missing.
            if not await current_user.is_authenticated or self._sessions.current() is None:
                return await refuse()
            answer = await current_app.ensure_async(view)(*args, **kwargs)
            return await refuse() if self._sessions.has_left() else await _never_stored(answer)

        return guarded

    async def _to_login(self) -> Response:
        if not self._has_login_page():
            return await _plain("Sign in to see this page.")
        target = request.full_path if request.query_string else request.path
        location = f"{request.root_path}{self._config.login_url}"
        location += f"{'&' if '?' in location else '?'}next={quote(request.root_path + target, safe='/')}"
        return await _never_stored(redirect(location, 302))

    async def _unauthorized(self) -> Response:
        login_url = f"{request.root_path}{self._config.login_url}" if self._has_login_page() else None
        return await _never_stored((jsonify({"error": "login required", "login_url": login_url}), 401))

    def _has_login_page(self) -> bool:
        """Whether `login_url` leads to a view of the app's own: Dash's catch-all would lead back here, for ever."""
        adapter = self._server.url_map.bind("localhost")
        path = self._config.login_url.partition("?")[0]
        try:
            try:
                endpoint, _ = adapter.match(path, method="GET")
            except RequestRedirect as to_slash:
                endpoint, _ = adapter.match(urlsplit(to_slash.new_url).path, method="GET")
        except HTTPException:
            return False
        return endpoint not in self._pages


async def _plain(text: str) -> Response:
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>401</title><p>{text}</p></html>"
    return await _never_stored((page, 401))


async def _never_stored(answer: Any) -> Response:
    """A response that no cache, not even the browser's, may keep (ASVS 14.3.2)."""
    response: Any = await make_response(answer)
    response.headers["Cache-Control"] = "no-store"
    return cast("Response", response)


def safe_next(default: str = "/") -> str:
    """Where a login view may send its user: the request's `next` argument if it is a path of this server.

    Anything else would be an open redirect (ASVS 1.2.2 asks for validated URLs): an absolute or scheme-relative URL,
    a backslash that browsers read as a slash, control characters that they drop.

    Args:
        default: the path to use when there is no `next`, or no good one.

    Returns:
        A path that begins with exactly one slash.
    """
    target: str = request.args.get("next", "")
    if not target.startswith("/") or target.startswith("//") or _CONTROL.search(target):
        if target:
            security.warning("unsafe next=%.64r remote=%s", target, request.remote_addr)
        return default
    return target
