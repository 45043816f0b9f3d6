"""Who answered and why, as the client is told: in headers, and as a `rouse` object in the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from appliance.routing.candidates import Endpoint

MAX_HEADER = 200
"""Characters of a header's value."""
MAX_REASON = 500
MAX_ATTEMPTS = 20
"""Attempts that an answer lists; the header counts all."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint to ask, and why."""

    endpoint: Endpoint
    reason: str
    router: str
    ranked: bool = True
    """Whether anybody wants it in particular."""


@dataclass(frozen=True, slots=True)
class Roused:
    """A machine that was woken for a request."""

    node: str
    seconds: float
    """How long the request waited until the expert was ready."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One endpoint that was asked, and what came of it."""

    endpoint: Endpoint
    outcome: str
    """`answered`, or what went wrong in a few words."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an answer comes from."""

    candidate: Candidate
    attempts: Sequence[Attempt]
    woken: Roused | None = None
    """The machine that was woken to answer."""
    waking: str | None = None
    """The machine of the first choice, when another answers while it wakes."""

    def headers(self) -> dict[str, str]:
        """Return the headers; whatever a router or a node says, they are short printable ASCII."""
        endpoint = self.candidate.endpoint
        woken = {"X-Rouse-Woken": f"{self.woken.seconds:.1f}"} if self.woken is not None else {}
        return {
            **woken,
            "X-Rouse-Expert": header_value(endpoint.name),
            "X-Rouse-Node": header_value(endpoint.node),
            "X-Rouse-Reason": header_value(self.candidate.reason),
            "X-Rouse-Router": header_value(self.candidate.router),
            "X-Rouse-Attempts": str(len(self.attempts)),
        }

    def member(self) -> bytes:
        """Return the `rouse` object as a member of a JSON object: the key, a colon and the value."""
        return b'"rouse":' + to_json(self._as_json())

    def _as_json(self) -> Mapping[str, Any]:
        endpoint = self.candidate.endpoint
        power: dict[str, Any] = {}
        if self.woken is not None:
            power["woken"] = {"node": self.woken.node, "seconds": round(self.woken.seconds, 2)}
        if self.waking is not None:
            power["waking"] = self.waking
        return {
            "expert": endpoint.name,
            "node": endpoint.node,
            "reason": self.candidate.reason[:MAX_REASON],
            "router": self.candidate.router[:MAX_HEADER],
            "attempts": [
                {
                    "expert": attempt.endpoint.name,
                    "node": attempt.endpoint.node,
                    "outcome": attempt.outcome[:MAX_REASON],
                    "seconds": round(attempt.seconds, 4),
                }
                for attempt in self.attempts[-MAX_ATTEMPTS:]
            ],
            **power,
        }


def header_value(text: str) -> str:
    """Return what a header may hold of a text: one line of printable ASCII (RFC 9110, section 5.5)."""
    kept = text[:MAX_HEADER]
    if not (kept.isascii() and kept.isprintable()):
        kept = "".join(character if " " <= character <= "~" else "?" for character in kept)
    return kept.strip()
