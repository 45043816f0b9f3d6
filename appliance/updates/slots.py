"""The two slots on the disk, as the kernel and udev know them.

Types are those of the Discoverable Partitions Specification
(https://uapi-group.org/specifications/specs/discoverable_partitions_specification/).
"""

import json
import subprocess
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.updates.errors import InstallError
from appliance.updates.published import Architecture

_TYPES: dict[Architecture, tuple[str, str]] = {
    "amd64": ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
    "arm64": ("b921b045-1df0-41c3-af44-4c6f280d3fae", "df3300ce-d69f-4c92-978c-9bfb0f38d820"),
}
_PREFIX = "rouse_"
_SECONDS = 30


class _Device(BaseModel):
    """A line of lsblk(8)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int
    partlabel: str | None = None
    parttype: str | None = None
    partuuid: str | None = None


class _Listing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    blockdevices: tuple[_Device, ...]


@dataclass(frozen=True, slots=True)
class Slots:
    """What is in the slots, and how much fits.

    Attributes:
        root_size: bytes that fit into each root partition.
        verity_size: the same for hash trees.
        versions: what both partitions of a slot are labelled with.
        parts: identifiers of the partitions.
    """

    root_size: int
    verity_size: int
    versions: frozenset[str]
    parts: frozenset[str]


def read_slots(architecture: Architecture) -> Slots:
    """Read the slots.

    Raises:
        InstallError: they can't be read, or this machine has none.
    """
    command = ["lsblk", "--json", "--bytes", "--list", "--output", "SIZE,PARTLABEL,PARTTYPE,PARTUUID"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603 - a fixed one
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(f"the slots can't be read: {error}") from error
    return parse_slots(done.stdout, architecture)


def parse_slots(listing: bytes, architecture: Architecture) -> Slots:
    """Read the slots from what lsblk says.

    Raises:
        InstallError: this is no such listing, or it has no slots.
    """
    try:
        devices = _Listing.model_validate(json.loads(listing)).blockdevices
    except (ValueError, ValidationError) as error:
        raise InstallError(f"lsblk says something that is not understood: {error}") from error
    root_type, verity_type = _TYPES[architecture]
    roots = [device for device in devices if device.parttype == root_type]
    verities = [device for device in devices if device.parttype == verity_type]
    if not roots or not verities:
        raise InstallError("this machine's disk has no slots for the image")
    return Slots(
        root_size=min(device.size for device in roots),
        verity_size=min(device.size for device in verities),
        versions=_versions(roots) & _versions(verities),
        parts=frozenset(device.partuuid for device in (*roots, *verities) if device.partuuid is not None),
    )


def _versions(devices: list[_Device]) -> frozenset[str]:
    labels = [device.partlabel or "" for device in devices]
    return frozenset(label.removeprefix(_PREFIX) for label in labels if label.startswith(_PREFIX))
