"""Dash's pages, with what our own script needs written into them."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigurationError
from . import bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CONFIG = re.compile(
    r"""<script\b[^>]*\sid=(["']?)_dash-config\1(?=[\s>])[^>]*>(?P<json>.*?)</script\s*>""", re.IGNORECASE | re.DOTALL
)
_NONCE = re.compile(r"""<script\b[^>]*\snonce=["']?(?P<nonce>[\w+/=-]+)["'\s>]""", re.ASCII | re.IGNORECASE)
"""A nonce as the Content Security Policy spells it: base64 (CSP3, 2.3.1)."""

_IN_SCRIPT = [(character, f"\\u{ord(character):04x}") for character in "<>&"]


def write(
    page: str,
    *,
    settings: Mapping[str, Any],
    config: Callable[[dict[str, Any]], dict[str, Any]],
    devtools: bool = False,
) -> str:
    """A page of Dash's with our settings and scripts, right before Dash's own config.

    The scripts carry the nonce that the page's scripts carry, if they do.

    Args:
        page: the page as Dash made it, with all that the app's index string and hooks have done to it.
        settings: what the page script is told: `prefix` (Dash's `requests_pathname_prefix`), `login` (the login page's
            URL path, or None), `page` (the page token), `session` (the public session id, or None), `bridge` (whether
            it stands in for Dash's worker) and `status` (whether it shows that there is no connection).
        config: given what Dash tells its renderer, gives what the renderer is to be told.
        devtools: whether Dash's dev tools are on: they need a script of their own, after the one for every page.

    Raises:
        ConfigurationError: the page has no such config, or none that is JSON.
    """
    found = _CONFIG.search(page)
    if found is None:
        raise ConfigurationError(
            'the page has no <script id="_dash-config">: keep {%config%} in the index_string, and what interpolate_index '
            "is given as config, as they are"
        )
    try:
        given = json.loads(found["json"])
    except ValueError as error:
        raise ConfigurationError(
            f'the page\'s <script id="_dash-config"> is not JSON ({error}): do not change it in an index hook'
        ) from error
    if not isinstance(given, dict):
        raise ConfigurationError(
            'the page\'s <script id="_dash-config"> is not a JSON object: do not change it in an index hook'
        )
    start, begin, end = found.start(), found.start("json"), found.end("json")
    names = [bundles.PLAIN if settings.get("bridge") is False else bundles.BRIDGE]
    if devtools:
        names.append(bundles.DEVTOOLS)
    nonce = _NONCE.search(page)
    tags = _meta(settings) + "".join(
        _script(f"{settings['prefix']}_dash-quart-ws/{bundles.script_file(name)}", nonce) for name in names
    )
    body = _json(config(given))
    for character, escaped in _IN_SCRIPT:  # three times as long a text is read ten times as fast as str.translate does
        body = body.replace(character, escaped)
    return f"{page[:start]}{tags}{page[start:begin]}{body}{page[end:]}"


def _meta(settings: Mapping[str, Any]) -> str:
    return f'<meta name="dash-quart-ws" content="{html.escape(_json(dict(settings)))}">'


def _script(source: str, nonce: re.Match[str] | None) -> str:
    attribute = f' nonce="{nonce["nonce"]}"' if nonce else ""
    return f'<script src="{html.escape(source)}"{attribute}></script>'


def _json(value: Any) -> str:
    """In ASCII, so that it stands wherever it is written: U+2028, U+2029 and lone surrogates are escaped."""
    return json.dumps(value, separators=(",", ":"))
