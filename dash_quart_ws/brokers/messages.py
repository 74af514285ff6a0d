"""What is said through a broker, as JSON text: pushes, questions to other workers, and what they answer.

A broker carries it and does not read it. Who reads it checks every field: another version may have written it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .base import Target, TargetKind

if TYPE_CHECKING:
    from .base import Json


@dataclass(frozen=True, slots=True)
class Push:
    """Properties of a component, for every tab of a target's connections."""

    payload: str
    """JSON text, as it goes to the browser: `{"componentId": …, "props": {…}}`."""
    sets: tuple[str, ...] | None = None
    """As in `wire.messages.SetProps`."""
    path: str | None = None
    """The websocket path of the Dash app whose connections are meant; None: of every app."""

    def text(self) -> str:
        """JSON text for `Broker.publish`. The payload goes in as a string: nobody parses it on the way."""
        return json.dumps({"payload": self.payload, "sets": self.sets, "path": self.path})

    @classmethod
    def of_text(cls, text: str) -> Push:
        """What `text` wrote.

        Raises:
            ValueError, TypeError, KeyError: something else did.
        """
        fields: dict[str, Any] = json.loads(text)
        sets = fields["sets"]
        return cls(str(fields["payload"]), None if sets is None else tuple(map(str, sets)), _path_of(fields))


@dataclass(frozen=True, slots=True)
class Close:
    """End the connections of a target, and leave their sessions as they are."""

    target: Target
    code: int
    reason: str
    path: str | None = None
    """As in `Push`."""

    def json(self) -> Json:
        """For `Broker.request`."""
        return {"close": list(self.target), "code": self.code, "reason": self.reason, "path": self.path}

    @classmethod
    def of_json(cls, question: Json) -> Close:
        """What `json` made.

        Raises:
            ValueError, TypeError, KeyError: it is another question.
        """
        kind, name = question["close"]
        target = Target(TargetKind(kind), str(name))
        return cls(target, int(question["code"]), str(question["reason"]), _path_of(question))


@dataclass(frozen=True, slots=True)
class RightsChanged:
    """A user's groups are others now."""

    user: str

    def json(self) -> Json:
        """For `Broker.request`."""
        return {"rights_changed": self.user}

    @classmethod
    def of_json(cls, question: Json) -> RightsChanged:
        """What `json` made.

        Raises:
            ValueError, TypeError, KeyError: it is another question.
        """
        return cls(str(question["rights_changed"]))


@dataclass(frozen=True, slots=True)
class Subscription:
    """A session joins a topic, or leaves it: published to the session, for its connections of other workers."""

    topic: str
    joins: bool

    def text(self) -> str:
        """JSON text for `Broker.publish`."""
        return json.dumps({"topic": self.topic, "joins": self.joins})

    @classmethod
    def of_text(cls, text: str) -> Subscription:
        """What `text` wrote.

        Raises:
            ValueError, TypeError, KeyError: something else did.
        """
        fields: dict[str, Any] = json.loads(text)
        return cls(str(fields["topic"]), bool(fields["joins"]))


@dataclass(frozen=True, slots=True)
class Closed:
    """A worker's answer to a `Close`, a `RightsChanged` or a revocation: what that has ended there."""

    connections: int
    slowest_ms: float
    """Until the last close frame was handed over, or the transport reset."""

    def json(self) -> Json:
        """For the future that a `Listener` gives."""
        return {"connections": self.connections, "slowest_ms": self.slowest_ms}

    @classmethod
    def of_json(cls, answer: Json) -> Closed:
        """What `json` made.

        Raises:
            ValueError, TypeError, KeyError: something else did.
        """
        return cls(int(answer["connections"]), float(answer["slowest_ms"]))


def _path_of(fields: dict[str, Any]) -> str | None:
    path = fields["path"]
    return None if path is None else str(path)
