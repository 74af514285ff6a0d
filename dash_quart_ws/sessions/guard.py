"""Login protection of Dash's own routes.

Default deny: every rule that Dash, one of its hooks or its pages registers needs a login, but for a short list of those
that hold nothing of anybody, and for what the app has made public (`sessions.access`). Pages send a visitor to the login,
data routes answer 401. A callback that comes from a page of another session is answered with 409, and does not run.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, quote, urlsplit

from quart import current_app, g, jsonify, make_response, redirect, request
from quart.wrappers.response import IterableBody
from quart_auth import Action, current_user
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from .._dash import OWN_PAGE, cancels_jobs, is_router, own_tools, page_found_for
from ..connections import body
from ..exceptions import ConfigurationError
from ..wire.messages import STALE_PAGE
from . import pages
from .access import PublicRoutes, access_of, nameless
from .rights import RIGHTS, Groups
from .visitors import name_visitor, remote_here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dash import Dash
    from quart import Quart, Response

    from ..config import Config
    from ..connections.session import Session
    from .sessions import Sessions

security = logging.getLogger("dash_quart_ws.security")

OPEN_RULES = (
    "_dash-component-suites/<string:package_name>/<path:fingerprinted_path>",
    "_dash-quart-ws/<file>",
    "_dash-quart-ws/effects",
    "_dash-quart-ws/session",
    "_favicon.ico",
    "_reload-hash",
)
"""Rules below an app's prefix that need no login: code from packages, what a callback did to its browser (for who
knows its name, in the same session), whether a page is still current, an icon, and a hash that changes with the code."""

SESSION_HEADER = "Dash-Session"
"""Says that an answer is about the session: `required`, log in; `stale`, the page belongs to another one."""

RETRY_AFTER = 5
"""Seconds after which it is worth to ask again when the broker was lost."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """What the pages of an app are told of the way that its callbacks take, where that is another one than Dash tells."""

    needs_socket: bool = True
    """Whether they get a websocket at all."""
    one_by_one: bool = False
    """Whether each callback says for itself that it goes over the websocket, though `websocket_callbacks=True`."""
    on_http: frozenset[str] = frozenset()
    """Those that then stay on HTTP."""

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        """Dash's `_dash-config`."""
        if not self.needs_socket:
            return {name: value for name, value in config.items() if name != "websocket"}
        if self.one_by_one and "websocket" in config:
            return {**config, "websocket": {**config["websocket"], "enabled": False}}
        return config

    def listed(self, callbacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Dash's list of callbacks, when each says for itself."""
        return [{**one, "websocket": one["output"] not in self.on_http} for one in callbacks]


class Guard:
    """Wraps the views of one Dash app, and says which of its callbacks a visitor may call."""

    def __init__(
        self,
        app: Dash,
        server: Quart,
        sessions: Sessions,
        groups: Groups,
        config: Config,
        public: PublicRoutes,
        page_guards: dict[str, Guard],
        uploads: body.Uploads,
    ) -> None:
        self._app = app
        self._server = server
        self._sessions = sessions
        self._groups = groups
        self._config = config
        self._public = public
        self._uploads = uploads
        self._page_guards = page_guards
        """Endpoints of Dash's pages, of every app on the server, and whose they are."""
        self._public_callbacks: frozenset[str] = frozenset()
        self._streams_to_nobody = False
        self.route = Route()
        self._public_pages: tuple[int, bool] | None = None

    @property
    def active(self) -> bool:
        """Whether visitors need a login."""
        return self._config.login_required is not False and self._sessions.active

    def survey(self, callback_list: list[dict[str, Any]]) -> None:
        """Dash has been set up: note which callbacks are public.

        Raises:
            ConfigurationError: a callback demands a group, and nothing says where groups come from.
        """
        accesses = {
            name: access_of(spec["callback"]) for name, spec in self._app.callback_map.items() if "callback" in spec
        }
        if self._groups.source is None:
            for name, access in accesses.items():
                if access.requirement is not None and access.requirement.groups is not None:
                    raise ConfigurationError(
                        f"the callback for {name!r} demands groups=, but nothing says who is in one: give "
                        "QuartBackend(list_groups=…), a function (user) -> groups, async if it has to wait"
                    )
        public = {name for name, access in accesses.items() if access.public}
        self._public_callbacks = frozenset(public | self._cancelling(public))
        streaming = {spec["output"] for spec in callback_list if spec.get("websocket") or spec.get("persistent")}
        self._streams_to_nobody = bool(self._public_callbacks & streaming)

    def _cancelling(self, names: set[str]) -> set[str]:
        """The callbacks that Dash has made of the `cancel=` of these."""
        callbacks = self._app.callback_map
        inputs = [one for name in names for one in (callbacks[name].get("background") or {}).get("cancel", ())]
        return {name for name, spec in callbacks.items() if cancels_jobs(spec) and spec["inputs"][0] in inputs}

    # ------------------------------------------------------------------------------------------ who may see what

    @property
    def has_something_for_nobody(self) -> bool:
        """Whether there is any reason for a visitor without a login to open a websocket."""
        return not self.active or bool(self._public_callbacks) or self._has_public_pages

    @property
    def nobody_streams(self) -> bool:
        """Whether a page that was rendered for nobody has a use for a websocket."""
        return not self.active or self._streams_to_nobody

    @property
    def _has_public_pages(self) -> bool:
        """Whether one of the public routes is a page of Dash's, not a view of the app's own that was named as well."""
        if self._public_pages is None or self._public_pages[0] != len(self._public):
            rules = self._server.url_map.iter_rules()
            own = {nameless(rule.rule) for rule in rules if rule.endpoint not in self._page_guards}
            self._public_pages = len(self._public), any(nameless(route) not in own for route in self._public)
        return self._public_pages[1]

    def is_public_page(self, pathname: str) -> bool:
        """Whether nobody may see what Dash shows at a path, given as the browser shows it, without the root path.

        The path and the page that Dash finds for it both have to be public: two routes that overlap do not open one
        another.
        """
        if not self._public.match(pathname):
            return False
        below = pathname.removeprefix(self._app.config.routes_pathname_prefix)
        try:
            found = page_found_for(self._app, f"{self._app.config.requests_pathname_prefix}{below}")
        except LookupError:  # Dash cannot read a line break in a variable of a path
            return False
        if found is None:
            return True
        path, template = (part and f"{self._app.config.routes_pathname_prefix}{part.lstrip('/')}" for part in found)
        return self._public.covers(cast("str", path), template)

    def refusal(self, session: Session | None, payload: dict[str, Any]) -> str | None:
        """Why this visitor may not call this callback at all; None if they may. What groups say comes later."""
        if session is not None or not self.active:
            return None
        output = payload["output"]
        if output in self._public_callbacks or self._is_public_routing(output, payload):
            return None
        security.info("deny user=None callback=%.64r reason='not logged in' remote=%s", output, remote_here())
        return "login required"

    def _is_public_routing(self, output: str, payload: dict[str, Any]) -> bool:
        """Whether Dash's pages router is asked for a public page.

        It is given the values of the inputs by their place, so their places have to be the right ones: else a public path
        could be shown here, and another one there.
        """
        spec = self._app.callback_map.get(output)
        if spec is None or not is_router(self._app, spec):
            return False
        inputs = payload.get("inputs")
        declared = [(one["id"], one["property"]) for one in spec["inputs"]]
        if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
            return False
        if [(one.get("id"), one.get("property")) for one in inputs] != declared:
            return False
        pathname = inputs[0].get("value")
        config = self._app.config
        if not isinstance(pathname, str) or not pathname.startswith(config.requests_pathname_prefix):
            return False
        below = pathname.removeprefix(config.requests_pathname_prefix)
        return self.is_public_page(f"{config.routes_pathname_prefix}{below}")

    def is_stale(self, token: Any, session: Session | None) -> bool:
        """Whether what is asked comes from a page that was rendered for another session than this one.

        A client that brings no token has no page: a script.
        """
        if token is None or not self._sessions.active or pages.named_by(self._app, token) == pages.name_of(session):
            return False
        security.warning(
            "stale-page user=%.64r session=%s page=%s remote=%s",
            getattr(session, "user", None), pages.name_of(session), pages.named_by(self._app, token), remote_here(),
        )  # fmt: skip
        return True

    def is_of_somebody(self, token: Any) -> bool:
        """Whether a page token names a session that goes on."""
        name = pages.named_by(self._app, token)
        return name is not None and self._sessions.goes_on(name)

    def config_for(self, session: Session | None, config: dict[str, Any]) -> dict[str, Any]:
        """What a page's `_dash-config` says to who asks for it.

        Nobody gets no `validation_layout`, which holds the text of every page, and no websocket that the page has no use
        for: its callbacks then go over HTTP, but for those that stream.
        """
        if session is not None or not self.active:
            return self.route.config(config)
        shown = {name: value for name, value in config.items() if name not in ("validation_layout", "websocket")}
        shown["suppress_callback_exceptions"] = True  # there is nothing to validate the callbacks by
        if self.nobody_streams and "websocket" in config:
            shown["websocket"] = {**config["websocket"], "enabled": False}
        return shown

    # ----------------------------------------------------------------------------------------------- Dash's views

    def page(
        self, endpoint: str, view: Callable[..., Any], leads_to: str | None = None
    ) -> Callable[..., Awaitable[Any]]:
        """A view that answers with a page: without a login it leads there. `leads_to`: where the page itself redirects."""
        self._page_guards[endpoint] = self

        async def shown(*args: Any, **kwargs: Any) -> Any:
            response: Any = await make_response(await _call(view, *args, **kwargs))
            if self._sessions.active and self.nobody_streams and await self.visitor() is None:
                name_visitor(request, response)
            return response

        async def for_nobody(*args: Any, **kwargs: Any) -> Any:
            if not self.is_public_page(request.path if leads_to is None else leads_to):
                return await self._to_login()
            self._drop_dead_cookies()
            return await shown(*args, **kwargs)

        return self._wrap(shown, for_nobody, self._to_login)

    def data(self, view: Callable[..., Any], *, public: bool = False) -> Callable[..., Awaitable[Any]]:
        """A view that answers a script: without a login it is 401, unless the app has made it public."""
        return self._wrap(view, view if public else self._unauthorized, self._unauthorized)

    def file(self, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """A view that answers with a file, for which nobody's groups are asked."""
        return self._wrap(view, self._unauthorized, self._unauthorized, asks_groups=False)

    def tools(self, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """The MCP endpoint: nothing that Dash works out for one user is there for the next."""

        async def for_one() -> Any:
            own_tools(self._app)
            return await _call(view)

        return self.data(for_one)

    def layout(self, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """The layout, made for who asks: for nobody only where there are public pages to show in it."""

        async def for_nobody() -> Any:
            return await _call(view) if self._has_public_pages else await self._unauthorized()

        return self._wrap(view, for_nobody, self._unauthorized)

    def dependencies(self, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """The list of callbacks: nobody learns of the public ones only, and of those that are the browser's own code."""

        async def for_somebody() -> Any:
            return await _listed(view, self.route.listed) if self.route.one_by_one else await _call(view)

        async def for_nobody() -> Any:
            if not self._has_public_pages:
                return await self._unauthorized()
            return await _listed(view, lambda found: [one for one in found if self._is_shown_to_nobody(one)])

        return self._wrap(functools.wraps(view)(for_somebody), for_nobody, self._unauthorized)

    def _is_shown_to_nobody(self, callback: dict[str, Any]) -> bool:
        name = callback["output"]
        is_code = callback.get("clientside_function") is not None
        return is_code or name in self._public_callbacks or is_router(self._app, self._app.callback_map[name])

    def callbacks(self, view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """The callbacks over HTTP: from a page of this very session, and for nobody the public ones only."""

        @functools.wraps(view)
        async def guarded() -> Any:
            session = await self.visitor()
            wrong = await self._wrong_page(session)
            if wrong is not None:
                return wrong
            if session is not None:
                body.allow(self._config.upload_bytes)
            if session is None and self.active:
                asked = await self.json_body()
                if not _is_request(asked) or self.refusal(None, asked) is not None:
                    return await self._unauthorized()
            await self._know_rights(session)
            if session is not None and "endId" not in request.args:
                # A script has no page: its background jobs are its session's.
                setattr(g, OWN_PAGE, pages.mint(self._app, session, "none"))
            try:
                answer = await _call(view)
            except HTTPException:
                if not self._sessions.has_left():
                    raise  # the callback's own answer
            else:
                if not self._sessions.has_left():
                    return await _never_stored(answer)
            if self._sessions.current() is not None:  # another extension's session: there is nothing to log in to here
                return await _never_stored((jsonify({"error": "a session has ended"}), 401))
            return await self._unauthorized()

        return guarded

    async def json_body(self) -> Any:
        """What the request's JSON says; None if it is no JSON. A large one waits for its turn."""
        return await self._uploads.json(self._sessions.payer())

    async def is_current(self) -> Response:
        """The view that tells a page whether it still belongs to who is logged in: 204, else 401 or 409."""
        wrong = await self._wrong_page(await self.visitor())
        return await _never_stored(("", 204)) if wrong is None else wrong

    async def _wrong_page(self, session: Session | None) -> Response | None:
        """The answer to a page that was rendered for another session than this one; None if it was for this one."""
        token = request.args.get("endId")
        if token is None and session is not None and self._sessions.uses_cookies and _is_from_browser():
            token = ""  # a page from before there were tokens
        if not self.is_stale(token, session):
            return None
        if session is None and self.active and pages.named_by(self._app, token) not in (None, pages.NOBODY):
            return await self._unauthorized()  # whose page it was is logged in no more
        return await _about_session("stale", jsonify({"error": STALE_PAGE}), 409)

    def _wrap(
        self,
        view: Callable[..., Any],
        for_nobody: Callable[..., Any],
        refuse: Callable[[], Awaitable[Response]],
        *,
        asks_groups: bool = True,
    ) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            session = await self.visitor()
            if asks_groups:
                await self._know_rights(session)
            if not self.active:
                return await _call(view, *args, **kwargs)
            if session is None:
                return await _never_stored(await _call(for_nobody, *args, **kwargs))
            try:
                answer = await _call(view, *args, **kwargs)
            except HTTPException:
                if self._sessions.has_left():
                    return await refuse()
                raise
            if self._sessions.has_left():
                return await refuse()
            response = await _never_stored(answer)
            if isinstance(response.response, IterableBody):  # a stream of a hook's route: it ends with the session
                response.response = IterableBody(self._sessions.while_on(response.response, session))
            return response

        return guarded

    async def visitor(self) -> Session | None:
        """The session of this request, if it is good for something here."""
        # The user class may know better than the token: an account that is gone, a second factor that is missing.
        if self.active and not await current_user.is_authenticated:
            return None
        return self._sessions.current()

    async def _know_rights(self, session: Session | None) -> None:
        """Have the user's groups at hand for whatever the view asks of them."""
        known = session is not None and session.user is not None and await current_user.is_authenticated
        rights = self._groups.of(cast("str", cast("Session", session).user)) if known else None
        setattr(g, RIGHTS, rights)
        if rights is not None:
            await rights.read()

    # ---------------------------------------------------------------------------------------------- the answers

    def _drop_dead_cookies(self) -> None:
        """A browser that shows a public page with the cookie of an ended session is nobody's from here on: without that
        cookie its websocket is not taken for one that has to go to the login.
        """
        for visit in self._sessions.visits().values():
            if visit.ending is not None and visit.user is not None and visit.user.action is Action.PASS:
                visit.user.action = Action.DELETE

    async def _to_login(self) -> Response:
        if self._sessions.is_cut_off:
            return await self._unavailable()
        if not self._has_login_page():
            return await _plain("Sign in to see this page.")
        target = request.full_path if request.query_string else request.path
        location = f"{request.root_path}{self._config.login_url}"
        location += f"{'&' if '?' in location else '?'}next={quote(request.root_path + target, safe='/')}"
        return await _never_stored(redirect(location, 302))

    async def _unavailable(self) -> Response:
        """The answer while nobody here can tell which sessions have ended."""
        response = await _plain("The server cannot check your login at the moment. Try again soon.", 503)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    async def _unauthorized(self, *_args: Any, **_kwargs: Any) -> Response:
        if self._sessions.is_cut_off:
            return await self._unavailable()
        body = jsonify({"error": "login required", "login_url": self.login_path()})
        return await _about_session("required", body, 401)

    def login_path(self) -> str | None:
        """Path of the login page as the browser has to ask for it; None where there is none."""
        return f"{request.root_path}{self._config.login_url}" if self._has_login_page() else None

    def _has_login_page(self) -> bool:
        """Whether `login_url` leads to a view of the app's own, or to a public page of Dash's: else it would lead back to
        where it came from, for ever.
        """
        adapter = self._server.url_map.bind("localhost")
        path = self._config.login_url.partition("?")[0]
        try:
            try:
                endpoint, _ = adapter.match(path, method="GET")
            except RequestRedirect as to_slash:
                endpoint, _ = adapter.match(urlsplit(to_slash.new_url).path, method="GET")
        except HTTPException:
            return False
        guard = self._page_guards.get(endpoint)
        return guard is None or guard.is_public_page(path)


def _is_from_browser() -> bool:
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def _is_request(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("output"), str)


async def _call(view: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    answer = await current_app.ensure_async(view)(*args, **kwargs)
    return await answer if inspect.isawaitable(answer) else answer  # Dash wraps a hook's async view in a plain function


async def _listed(view: Callable[..., Any], change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Any:
    """Dash's list of callbacks, changed."""
    response: Any = await make_response(await _call(view))
    response.set_data(json.dumps(change(json.loads(await response.get_data(as_text=True)))))
    return response


async def _plain(text: str, status: int = 401) -> Response:
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{status}</title><p>{text}</p></html>"
    return await _never_stored((page, status))


async def _never_stored(answer: Any) -> Response:
    """A response that no cache, not even the browser's, may keep (ASVS 14.3.2)."""
    response: Any = await make_response(answer)
    response.headers["Cache-Control"] = "no-store"
    return cast("Response", response)


async def _about_session(what: str, body: Response, status: int) -> Response:
    """An answer that our page script acts on; a callback's own 401 or 409 is nothing to it."""
    response = await _never_stored((body, status))
    response.headers[SESSION_HEADER] = what
    return response


def safe_next(default: str = "/", *, search: str | None = None) -> str:
    """Where a login may send its user: the request's `next` argument if it is a path of this server.

    Anything else would be an open redirect (ASVS 1.2.2 asks for validated URLs): an absolute or scheme-relative URL,
    a backslash that browsers read as a slash, control characters that they drop.

    Args:
        default: the path to use when there is no `next`, or no good one.
        search: the query string to look in (`?next=…`), for a login page that is a Dash page: the `search` of its
            `dcc.Location`. None: the request's own.

    Returns:
        A path that begins with exactly one slash.
    """
    target: str = request.args.get("next", "") if search is None else _argument(search, "next")
    if not target.startswith("/") or target.startswith("//") or _CONTROL.search(target):
        if target:
            # Without its query and fragment, which may hold what nobody should read.
            security.warning("unsafe-next target=%.64r remote=%s", re.split("[?#]", target)[0], remote_here())
        return default
    return target


def _argument(search: str, name: str) -> str:
    return parse_qs(str(search).removeprefix("?")).get(name, [""])[0]
