"""Page tokens: which session a page was rendered for.

Dash signs an `end_id` into each page, and its renderer sends that back with every callback over HTTP. Here it names the
page's session, so that nothing of one session's page runs in another. It is no credential: without the cookie of that
session it opens nothing.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from .._dash import sign_page, signed_page

if TYPE_CHECKING:
    from dash import Dash

    from ..connections.session import Session

NOBODY = "nobody"
"""What a token names in a page that was rendered for nobody."""


def mint(app: Dash, session: Session | None, page: str | None = None) -> str:
    """A token for a page that is rendered for this session now; each page has its own."""
    return sign_page(app, f"{name_of(session)}.{page or secrets.token_hex(12)}")


def mint_for(app: Dash, id: str | None) -> str:
    """The same for a page that goes on in another session, which has this public id; None: as nobody's."""
    return sign_page(app, f"{id or NOBODY}.{secrets.token_hex(12)}")


def named_by(app: Dash, token: str | None) -> str | None:
    """The public id of the session that a token names, or `NOBODY`; None for no token, or one that is not ours."""
    value = signed_page(app, token)
    name, separator, _nonce = (value or "").partition(".")
    return name if separator else None


def name_of(session: Session | None) -> str:
    """What a token of this session's pages says."""
    return NOBODY if session is None else session.id
