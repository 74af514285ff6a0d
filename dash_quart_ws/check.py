"""What is unsafe about a deployment, as far as the server's own settings show it: at start, and on the command line.

The ids are requirements of OWASP's ASVS 5.0.0. What only the outside can tell (TLS, what a proxy does) is `ok=None`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._dash import dash_apps, has_dev_tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quart import Quart
    from quart_auth import QuartAuth

    from .config import Config

logger = logging.getLogger("dash_quart_ws")

LONGEST_LOGIN = 30 * 24 * 3600
"""Seconds that a login may last before the check calls it unsafe; quart-auth's default is a year."""

SHORTEST_KEY = 32
"""Bytes of a `secret_key`: `secrets.token_hex(32)` has twice that, `secrets.token_bytes(32)` just that."""

FEWEST_CHARACTERS = 8
"""Different ones in a key. Random keys have more: 32 hexadecimal digits with fewer come once in 25 million keys."""

PLACEHOLDERS = (
    "changeme", "changethis", "replaceme", "replacethis", "secretkey", "yoursecret", "supersecret", "notsecret",
    "insecure", "password", "development", "donotuse",
)  # fmt: skip
"""In keys that somebody has typed, or copied from a tutorial; letters only, and long enough never to occur by chance."""

GOOD_KEY = "a value of secrets.token_hex(32), kept outside the code and shared by all workers"

NO_TLS = (
    "TLS ends nowhere in sight: somebody has come over plain http, to a name that is not this machine's own. Serve behind "
    "TLS; behind a "
    "proxy that does TLS, wrap the server in hypercorn's ProxyFixMiddleware"
)
TLS_UNSEEN = (
    "serve over https and wss only; behind a proxy that does TLS, wrap the server in hypercorn's ProxyFixMiddleware"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool | None
    """None: it cannot be seen from here, or is a decision that nobody else can take."""
    asvs: tuple[str, ...]
    """The requirements of ASVS 5.0 that it belongs to."""
    text: str
    """One line: what is wrong and what to set, or why it is fine. It holds no secret, and nothing of one."""


class Topic:
    """What is looked at, and the requirements of ASVS 5.0 that it belongs to; its methods make the findings."""

    def __init__(self, name: str, *asvs: str) -> None:
        self.name = name
        self.asvs = asvs

    def fine(self, text: str) -> Finding:
        return Finding(self.name, ok=True, asvs=self.asvs, text=text)

    def unsafe(self, text: str) -> Finding:
        return Finding(self.name, ok=False, asvs=self.asvs, text=text)

    def yours(self, text: str) -> Finding:
        return Finding(self.name, ok=None, asvs=self.asvs, text=text)


DEBUG = Topic("Debug mode", "13.4.2", "16.5.1")
TEST_SETTINGS = Topic("Test settings", "13.4.2", "16.5.4")
LOGIN = Topic("Login", "8.2.1", "8.3.1")
SECURE = Topic("Secure cookie", "3.3.1")
HTTP_ONLY = Topic("HttpOnly cookie", "3.3.4")
SAME_SITE = Topic("SameSite cookie", "3.3.2")
COOKIE_NAME = Topic("Cookie name", "3.3.1", "3.3.3")
LIFETIME = Topic("Length of a login", "7.3.2")
IDLE = Topic("Idle timeout", "7.3.1")
ABSOLUTE = Topic("Absolute timeout", "7.3.2")
STORED = Topic("Ended stays ended", "7.4.1")
KEY = Topic("Secret key", "11.2.3")
OLD_KEYS = Topic("Old secret keys", "11.2.3")
COMPRESSION = Topic("No compression", "15.2.2")
HOSTS = Topic("Host names", "4.4.2")
TLS = Topic("TLS", "4.4.1", "12.2.1")


def findings(server: Quart, options: Config) -> list[Finding]:
    """Look at everything, for every Dash app and every `QuartAuth` of the server.

    Call it when all of them have been made: at start of serving, or after the module has been imported.

    Args:
        server: the Quart app.
        options: those of its sessions, which its Dash apps share.
    """
    # Each app has options of its own, beside the ones that all share.
    apps = {app.config.routes_pathname_prefix: getattr(app.backend, "options", options) for app in dash_apps(server)}
    every = apps or {"/": options}
    auths: list[QuartAuth] = server.extensions.get("QUART_AUTH", [])
    found = [_debug(server), _test_settings(server), _login(every, has_auth=bool(auths))]
    for auth in auths:
        of_auth = [*_cookie(auth), _lifetime(auth, options)]
        # The line in the log has to say which one it means.
        found += of_auth if len(auths) == 1 else [_of(auth, finding) for finding in of_auth]
    if auths:
        found += [_idle(options), _absolute(options), _broker(options)]
    found += _keys(server, needed=bool(auths))
    found += [_compression(every), _hosts(options), TLS.yours(TLS_UNSEEN)]
    return found


def warn(server: Quart, options: Config) -> None:
    """At start of serving: one line in the log for each thing that is unsafe in production.

    In debug mode there is one line only: whoever develops knows the others, and nobody else should be served.
    """
    debug = _debug(server)
    for finding in [debug] if debug.ok is False else findings(server, options):
        if finding.ok is False:
            _log(finding)


def _log(finding: Finding) -> None:
    logger.warning("unsafe in production: %s (ASVS %s)", finding.text, ", ".join(finding.asvs))


# ------------------------------------------------------------------------------------------------- the server


def _debug(server: Quart) -> Finding:
    if server.debug:
        return DEBUG.unsafe("debug mode is on: leave out debug=True, QUART_DEBUG and server.debug = True")
    if any(has_dev_tools(app) for app in dash_apps(server)):
        return DEBUG.unsafe(
            "debug mode is on, in Dash's dev tools: leave out debug=True, enable_dev_tools(), DASH_DEBUG and DASH_UI"
        )
    return DEBUG.fine("debug mode and Dash's dev tools are off")


def _test_settings(server: Quart) -> Finding:
    on = [key for key in ("TESTING", "PROPAGATE_EXCEPTIONS") if server.config.get(key)]
    if on:
        return TEST_SETTINGS.unsafe(
            f"exceptions may pass the server's own handler and log: leave {' and '.join(on)} out of its config"
        )
    return TEST_SETTINGS.fine("exceptions end in the server's own handler, and in its log")


def _login(apps: dict[str, Config], *, has_auth: bool) -> Finding:
    if not has_auth:
        return LOGIN.unsafe("there is no QuartAuth, so everybody may see and call everything: add QuartAuth(server)")
    open_to_all = [prefix for prefix, options in apps.items() if options.login_required is False]
    if open_to_all:
        return LOGIN.unsafe(
            f"everybody may see and call everything at {', '.join(open_to_all)}: leave login_required=False out"
        )
    return LOGIN.fine("Dash's routes and its websocket need a login; views of your own are yours to protect")


def _compression(apps: dict[str, Config]) -> Finding:
    if any(options.compression for options in apps.values()):
        return COMPRESSION.unsafe(
            "a small websocket frame may inflate to gigabytes: leave compression=True out, unless you trust every client"
        )
    return COMPRESSION.fine("permessage-deflate is declined: no small frame inflates to gigabytes")


def _hosts(options: Config) -> Finding:
    # Origins are compared with the Host header: without a list of its own, the server believes whatever that says.
    if options.allowed_hosts is None:
        return HOSTS.yours(
            "any Host header is taken: give QuartBackend allowed_hosts=, or let your proxy refuse others"
        )
    return HOSTS.fine("requests for other hosts than allowed_hosts are refused")


# ----------------------------------------------------------------------------------------------- the sessions


def _setting(argument: str, value: str) -> str:
    return f"give QuartAuth {argument}={value}, or set QUART_AUTH_{argument.upper()} before it is made"


def _of(auth: QuartAuth, finding: Finding) -> Finding:
    which = f"cookie {auth.cookie_name!r:.64}" if auth.mode == "cookie" else f"bearer {auth.attribute_name!r:.64}"
    return dataclasses.replace(finding, text=f"{which}: {finding.text}")


def _cookie(auth: QuartAuth) -> list[Finding]:
    if auth.mode != "cookie":
        return []
    same_site = str(auth.cookie_samesite or "").title()
    return [
        SECURE.fine("browsers send the login's cookie over https only")
        if auth.cookie_secure
        else SECURE.unsafe(
            f"browsers send the login's cookie over plain http, too: {_setting('cookie_secure', 'True')}"
        ),
        HTTP_ONLY.fine("scripts cannot read the login's cookie")
        if auth.cookie_http_only
        else HTTP_ONLY.unsafe(
            f"any script in a page can read the login's cookie: {_setting('cookie_http_only', 'True')}"
        ),
        SAME_SITE.fine(f"{same_site}: other sites cannot post with the login's cookie")
        if same_site in ("Lax", "Strict")
        else SAME_SITE.unsafe(
            f"other sites may post with the login's cookie: {_setting('cookie_samesite', repr('Lax'))}"
        ),
        _cookie_name(auth),
    ]


def _cookie_name(auth: QuartAuth) -> Finding:
    """`__Host-` makes browsers hold the name to one host: no other subdomain can plant a cookie (RFC 6265bis, 4.1.3.2)."""
    cookie = str(auth.cookie_name)
    shared = bool(auth.cookie_domain) or auth.cookie_path != "/"
    if cookie.startswith("__Host-"):
        if auth.cookie_secure and not shared:
            return COOKIE_NAME.fine("__Host-: no other host can set, or be sent, the login's cookie")
        return COOKIE_NAME.unsafe(
            "nobody can log in, because browsers refuse a __Host- cookie without Secure, with a domain, or with another path "
            "than /: change those, or the name"
        )
    if not auth.cookie_secure:
        return COOKIE_NAME.yours("name it __Host-... once it is Secure: then no other host of your domain can set it")
    if not shared:
        return COOKIE_NAME.unsafe(
            f"other hosts of your domain can set this cookie: {_setting('cookie_name', repr('__Host-session'))}"
        )
    if cookie.startswith("__Secure-"):
        return COOKIE_NAME.yours(
            "__Secure-, with a domain or a path: right only where others are meant to share the cookie"
        )
    return COOKIE_NAME.unsafe(
        f"plain http can set this cookie, which has a domain or a path: {_setting('cookie_name', repr('__Secure-session'))}"
    )


def _lifetime(auth: QuartAuth, options: Config) -> Finding:
    limits = [limit for limit in (auth.duration, options.absolute_timeout) if limit is not None]
    if limits and min(limits) <= LONGEST_LOGIN:
        return LIFETIME.fine(f"a login that is not renewed ends after {_time(min(limits))}")
    lasts = f"lasts {_time(min(limits))}" if limits else "never ends"
    return LIFETIME.unsafe(
        f"a login, also a stolen one, {lasts}: {_setting('duration', '604800')} (a week, in seconds)"
    )


def _idle(options: Config) -> Finding:
    if options.idle_timeout is None:
        return IDLE.yours(
            "a page that nobody uses stays logged in: decide, and give QuartBackend idle_timeout= in seconds"
        )
    return IDLE.fine(f"a session ends after {_time(options.idle_timeout)} without use")


def _absolute(options: Config) -> Finding:
    if options.absolute_timeout is None:
        return ABSOLUTE.yours(
            "a login can be renewed for ever: decide, and give QuartBackend absolute_timeout= in seconds"
        )
    return ABSOLUTE.fine(f"a session ends {_time(options.absolute_timeout)} after its login, renewed or not")


def _broker(options: Config) -> Finding:
    if str(options.broker or "").startswith("memory:"):
        return STORED.unsafe(
            "after a restart, sessions that were logged out or revoked are valid again: leave broker='memory:' out"
        )
    if options.is_shared:
        return STORED.yours(
            "logouts and revocations are kept in the shared broker: give it persistence (appendonly yes) and "
            "maxmemory-policy noeviction"
        )
    return STORED.fine("logouts and revocations are stored, and survive a restart")


# --------------------------------------------------------------------------------------------------- the keys


def _keys(server: Quart, *, needed: bool) -> Iterator[Finding]:
    key = server.secret_key
    if key:
        wrong = _what_is_wrong_with(key)
        yield (
            KEY.unsafe(f"the secret_key {wrong}, so that logins can be forged: set it to {GOOD_KEY}")
            if wrong
            else KEY.fine("the secret_key is long enough, and no placeholder")
        )
    elif needed:
        yield KEY.unsafe(f"there is no secret_key to sign logins with: set it to {GOOD_KEY}")
    fallbacks: Any = server.config.get("SECRET_KEY_FALLBACKS")
    if isinstance(fallbacks, str | bytes) and fallbacks:
        yield OLD_KEYS.unsafe(
            "SECRET_KEY_FALLBACKS is one string, each character of which counts as a key: make it a list of whole keys"
        )
    elif fallbacks:
        wrong = next(filter(None, map(_what_is_wrong_with, fallbacks)), None)
        yield (
            OLD_KEYS.unsafe(f"a key in SECRET_KEY_FALLBACKS {wrong}, so that logins can be forged: take it out")
            if wrong
            else OLD_KEYS.fine("the keys in SECRET_KEY_FALLBACKS are long enough, and no placeholders")
        )


def _what_is_wrong_with(key: Any) -> str | None:
    value = key if isinstance(key, bytes) else str(key).encode()
    if len(value) < SHORTEST_KEY:
        return f"is shorter than {SHORTEST_KEY} bytes"
    letters = re.sub(rb"[^a-z]", b"", value.lower()).decode()
    if len(set(value)) < FEWEST_CHARACTERS or any(word in letters for word in PLACEHOLDERS):
        return "can be guessed (a placeholder, or a pattern over and over)"
    return None


# ----------------------------------------------------------------------------------------------- seen at a request


def plain_http(scheme: str, host: str | None) -> bool:
    """Whether a request has come over plain http by a name that is not this machine's own.

    The client's address says nothing here: behind a proxy on this machine it is a loopback address.

    Args:
        scheme: of the request or websocket, after whatever middleware has put `X-Forwarded-Proto` into effect.
        host: its Host header, with or without a port.
    """
    return scheme in ("http", "ws") and not _is_loopback_name(host)


class PlainHttpWatch:
    """Says, once, that TLS ends nowhere in sight: when the first request comes that shows it."""

    def __init__(self) -> None:
        self._said = False
        self._fine: tuple[str, str | None] | None = None
        """What was looked at last: on a developer's machine it is the same each time."""

    def see(self, scheme: str, host: str | None) -> None:
        """Look at one request or websocket."""
        if self._said or (scheme, host) == self._fine:
            return
        if plain_http(scheme, host):
            self._said = True
            _log(TLS.unsafe(NO_TLS))
        self._fine = scheme, host


def _is_loopback_name(host: str | None) -> bool:
    try:
        name = (urlsplit(f"//{host or ''}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# ------------------------------------------------------------------------------------------------------- wording


def _time(seconds: float) -> str:
    for unit, length in (("day", 24 * 3600), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"
