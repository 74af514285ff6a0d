"""What a connection, and the app, know of a session. How it begins and ends is `sessions.sessions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One quart-auth login in one browser profile.

    Two of them are equal when their ids are: whatever was known of the session at the time.
    """

    id: str
    """Public: it names the session, and gives no access to it."""
    user: str | None
    """The user's `auth_id`, as `current_user.auth_id` gives it."""
    since: dt.datetime
    """When the user logged in, in UTC."""
    expires: dt.datetime
    """When it ends unless it is renewed, in UTC."""
    users: frozenset[str] = field(default=frozenset(), repr=False)
    """Every id under which its user is known: the token's, and the user object's."""
    seen: int = field(default=0, repr=False)
    """The position of the last revocation that was known when its token was minted."""

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Session) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class KnownSession(Session):
    """A session as it was last seen; equal to every other `Session` with its id, `current_session()` included.

    `remote` and `user_agent` tell people which of their sessions is which. They prove nothing: the one is the proxy's
    address where there is a proxy without ProxyFixMiddleware, the other is what the client says of itself.
    """

    last_seen: dt.datetime
    """When its last HTTP request, websocket or callback came, in UTC."""
    remote: str | None
    """The address that it came from; None where no request told."""
    user_agent: str
    """The browser's own words, without control characters and cut at 256; empty where it said nothing."""
