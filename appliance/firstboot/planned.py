"""A file that is to be on the machine."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file."""

    path: str
    """Below the root of the system."""
    content: bytes = field(repr=False)
    mode: int = 0o644
    group: str | None = None
    """Name of its group; root's when not set."""
    adopted: bool = False
    """Whether another program goes on to write it, so that it is written when it is to be another one only."""
