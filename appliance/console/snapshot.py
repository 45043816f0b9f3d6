"""What the screen shows, at one moment. Every part may be missing."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Door:
    """Pairing, as the node tells it on its own socket."""

    state: str
    code: str | None = None
    key: str | None = None
    """The beginning of the node's fingerprint, as `rouse pair list` shows it."""
    expires_in: float | None = None
    locked_for: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine itself."""

    load: float
    cores: int
    memory: float
    """Share in use."""
    temperature: float | None
    """Degrees Celsius."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything."""

    name: str
    version: str
    roles: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    door: Door | None = None
    node: str = "not running"
    """The node daemon, in a word."""
    broker: str | None = None
    """Where the broker is, and whether it is reached."""
    hub: str | None = None
    """The hub's own services, on a hub."""
    experts: tuple[tuple[str, str], ...] = ()
    """Name and state."""
    power: str | None = None
    update: str | None = None
    preflight: str | None = None
    """What the last check of the machine found, in a line."""
    errors: tuple[str, ...] = ()
    machine: Machine | None = field(default=None, compare=False)
