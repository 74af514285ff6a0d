"""The only module that touches Quart's private names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import quart.globals
from quart import has_request_context

if TYPE_CHECKING:
    from quart.sessions import SessionMixin

_globals = cast("Any", quart.globals)


def replace_session(session: SessionMixin) -> SessionMixin:
    """Let quart's `session` be this one, for the rest of the current request or websocket. Gives the one before."""
    before: SessionMixin = _globals.session._get_current_object()
    if hasattr(_globals, "websocket_ctx"):
        context = _globals.request_ctx if has_request_context() else _globals.websocket_ctx
        context.session = session
    else:  # one kind of context for all: Quart 0.23
        _globals.app_ctx._session = session
    return before
