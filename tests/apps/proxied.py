"""The basic app as it is served behind a proxy that can be trusted."""

from __future__ import annotations

from hypercorn.middleware import ProxyFixMiddleware

from tests.apps.basic import server

asgi = ProxyFixMiddleware(server, mode="legacy", trusted_hops=1)
