"""What the hub wants from whoever foresees demand: it is made elsewhere, and passed in."""

from collections.abc import Mapping
from typing import Protocol


class Forecast(Protocol):
    """Foresees which experts will be asked, from what was asked before."""

    def note(self, expert: str, now: float) -> None:
        """Take in that an expert was wanted, at a Unix time; it takes microseconds and never raises."""

    def wanted(self, now: float) -> Mapping[str, float]:
        """Return by expert how likely it is, 0 to 1, that it is wanted soon after a Unix time."""


class NoForecast:
    """Foresees nothing."""

    def note(self, expert: str, now: float) -> None:
        """Forget it."""

    def wanted(self, now: float) -> Mapping[str, float]:  # noqa: ARG002 - the protocol's
        """Return that nothing is likely."""
        return {}
