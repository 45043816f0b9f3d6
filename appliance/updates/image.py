"""The image that this machine runs, and where it keeps what belongs to updates."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.updates.errors import RefusedError
from appliance.updates.published import Architecture
from appliance.updates.signature import KEYS
from appliance.updates.versions import is_version

IMAGE_ID = "rouse"
_MACHINES: dict[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImagePaths:
    """Where things are on a machine; tests have other places."""

    os_release: Path = Path("/usr/lib/os-release")
    keys: Sequence[Path] = KEYS
    kernels: Path = Path("/boot/EFI/Linux")
    own: Path = Path("/var/lib/rouse-image/update")
    """The root part's folder, which only root may write."""
    good: Path = Path("/var/lib/rouse-image/etc")
    """Has a folder for each version, with a file `good` in those that came up."""
    staged: Path = Path("/var/lib/rouse/updates")
    """Where the node daemon puts what it downloads."""
    healthy: Path = Path("/run/rouse-image/healthy")
    """Is there once this boot is known to be good."""

    @property
    def files(self) -> Path:
        """What systemd-sysupdate takes its files from."""
        return self.own / "files"


def running_version(paths: ImagePaths) -> str | None:
    """Return the version of the image that runs, or None where no image does (os-release(5))."""
    try:
        lines = paths.os_release.read_text().splitlines()
    except OSError:
        return None
    values = {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}
    version = values.get("IMAGE_VERSION", "")
    return version if values.get("IMAGE_ID") == IMAGE_ID and is_version(version) else None


def require_version(paths: ImagePaths) -> str:
    """Return the version of the image that runs.

    Raises:
        RefusedError: no image does.
    """
    version = running_version(paths)
    if version is None:
        raise RefusedError("this machine does not run the image: its packages are updated by `rouse deploy`")
    return version


def architecture() -> Architecture:
    """Return this machine's architecture.

    Raises:
        RefusedError: there is no image for it.
    """
    found = _MACHINES.get(platform.machine())
    if found is None:
        raise RefusedError(f"there is no image for {platform.machine()}")
    return found


def came_up(paths: ImagePaths, version: str) -> bool:
    """Whether a version was ever up and healthy on this machine."""
    try:
        return (paths.good / version / "good").exists()
    except OSError:
        return False
