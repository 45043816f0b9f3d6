"""Where secrets and state lie, by who may read them.

Each of the appliance's services has a user of its own, and each folder belongs to one of them, or to a group of those
who share what is in it. The deploys make the folders (docs/services.md); where everything runs as one user, they are
made as they are needed and have no meaning but order.
"""

from pathlib import Path
from typing import Literal

Audience = Literal["hub", "node", "bus", "experts"]
"""Who reads a secret: the hub alone, the node daemon alone, both of these, or they and the experts."""

_AUDIENCES: dict[str, Audience] = {
    "broker-rouse.password": "bus",
    "expert.key": "experts",
    "metrics.key": "node",
}
"""Of the secrets that services make themselves; those that are not listed are the hub's alone."""


def secrets_folder(state: Path, audience: Audience) -> Path:
    """Return the folder of the secrets of an audience."""
    return state / "secrets" / audience


def secret_file(state: Path, name: str) -> Path:
    """Return the file of a secret, such as `expert.key`."""
    return secrets_folder(state, _AUDIENCES.get(name, "hub")) / name


def hub_folder(state: Path) -> Path:
    """Return the folder of what the hub alone keeps."""
    return state / "hub"


def node_folder(state: Path) -> Path:
    """Return the folder of what the node daemon alone keeps."""
    return state / "node"
