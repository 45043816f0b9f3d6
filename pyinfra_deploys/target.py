"""What a deploy asks about the machine it is run for."""

from pyinfra import host
from pyinfra.facts.files import Directory

from appliance.settings import Settings
from appliance.settings.section import Role
from pyinfra_deploys.inventory import Machine

IMAGE_FOLDER = "/usr/lib/rouse-image"
"""Only systems that were made by image_build have it."""


def machine() -> Machine:
    """Return the machine as the inventory has it."""
    found: Machine = host.data.machine
    return found


def everyone() -> tuple[Machine, ...]:
    """Return every machine of the configuration folder, also those that this run leaves alone."""
    found: tuple[Machine, ...] = host.data.house
    return found


def settings() -> Settings:
    """Return the machine's settings."""
    return machine().settings


def roles() -> frozenset[Role]:
    """Return the machine's roles."""
    return frozenset(settings().node.roles)


def is_chroot() -> bool:
    """Whether it is a root file system in a folder: nothing runs there."""
    return machine().is_chroot


def is_remote() -> bool:
    """Whether it is reached over SSH."""
    return not machine().is_chroot and not machine().is_local


def is_image() -> bool:
    """Whether its system is an image's, made by image_build: no packages can be installed there."""
    return _has_folder(IMAGE_FOLDER)


def is_dry() -> bool:
    """Whether nothing is changed in this run."""
    return bool(host.data.dry)


def has_manager() -> bool:
    """Whether systemd runs there, so that units can be started. In a container it may not."""
    return not is_chroot() and _has_folder("/run/systemd/system")


def _has_folder(path: str) -> bool:
    """Whether there is a folder, which is asked once in a run."""
    known: dict[str, bool] = host.connector_data.setdefault("folders", {})
    if path not in known:
        known[path] = bool(host.get_fact(Directory, path=path))
    return known[path]
