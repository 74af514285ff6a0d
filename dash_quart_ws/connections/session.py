"""What a connection, and the app, know of a session. How it begins and ends is `sessions.sessions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt


@dataclass(frozen=True, slots=True)
class Session:
    """One quart-auth login in one browser profile."""

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
