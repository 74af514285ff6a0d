"""A Quart backend for Plotly Dash whose websocket ends with the login session.

::

    from dash import Dash
    from quart_auth import QuartAuth
    from dash_quart_ws import QuartBackend

    app = Dash(__name__, backend=QuartBackend(), websocket_callbacks=True)
    server = app.server
    QuartAuth(server)
"""

from __future__ import annotations

from .backend import QuartBackend
from .callbacks.options import callback_options
from .config import Config
from .connections.connection import Connection
from .connections.presence import KnownConnection
from .connections.receipt import Pending, PendingReceipt, Receipt
from .connections.session import KnownSession, Session
from .exceptions import (
    BrokerError,
    CallbackTimeout,
    ConfigurationError,
    DashQuartWsError,
    EffectsUnavailable,
    GroupsUnknown,
    NotConnected,
    PropertyUnavailable,
    TooManyCallbacks,
    WebsocketNeeded,
)
from .extension import current_session
from .publisher import Publisher
from .sessions.access import add_public_routes, protected_callback, public_callback
from .sessions.guard import safe_next
from .sessions.rights import list_groups
from .wire.close import CloseCode

__version__ = "0.1.0.dev0"

__all__ = [
    "BrokerError",
    "CallbackTimeout",
    "CloseCode",
    "Config",
    "ConfigurationError",
    "Connection",
    "DashQuartWsError",
    "EffectsUnavailable",
    "GroupsUnknown",
    "KnownConnection",
    "KnownSession",
    "NotConnected",
    "Pending",
    "PendingReceipt",
    "PropertyUnavailable",
    "Publisher",
    "QuartBackend",
    "Receipt",
    "Session",
    "TooManyCallbacks",
    "WebsocketNeeded",
    "add_public_routes",
    "callback_options",
    "current_session",
    "list_groups",
    "protected_callback",
    "public_callback",
    "safe_next",
]
