"""Converges the models of a machine's experts."""

from pyinfra import host
from pyinfra.api import deploy

from appliance.models import catalogue
from appliance.models.folder import RESERVE_BYTES
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.models.needed import Needed, needed
from pyinfra_deploys.models.operations import FileSizes, FreeBytes, added, copied
from pyinfra_deploys.target import is_chroot, settings


@deploy("Models")
def models() -> None:
    """Have the models that the experts of the settings serve. On an image they belong to the data partition.

    Raises:
        DeployError: nobody knows where one is from, or the disk has no room.
    """
    if is_chroot():
        return
    folder = str(settings().paths.models)
    wanted = needed(settings(), catalogue.load(), settings().deploy.models)
    if not wanted:
        return
    sizes = host.get_fact(FileSizes, paths=tuple(f"{folder}/{one.name}" for one in wanted))
    missing = [one for one in wanted if not _is_there(one, sizes.get(f"{folder}/{one.name}"))]
    _refuse_unknown(missing)
    _need_room(missing, folder)
    for one in missing:
        if one.here is not None:
            copied(name=f"Copy {one.name}", source=str(one.here), dest=f"{folder}/{one.name}")
    for model in dict.fromkeys(one.model for one in missing if one.model is not None):
        added(name=f"Add {model}", model=model)


def _is_there(one: Needed, size: int | None) -> bool:
    return size is not None and one.bytes in {None, size}


def _refuse_unknown(missing: list[Needed]) -> None:
    for one in missing:
        if one.here is None and one.model is None:
            raise DeployError(
                f"{one.name} is in no catalogue, and deploy.models names no folder here that has it: "
                "put it there, or `rouse model add` it on the machine"
            )


def _need_room(missing: list[Needed], folder: str) -> None:
    """See to it that the disk is not filled up half-way. A file that is replaced is there until the new one is."""
    # What is copied is there twice for a moment.
    wanted = sum(one.bytes or 0 for one in missing) + max((one.bytes or 0 for one in missing if one.here), default=0)
    if not wanted:
        return
    free = host.get_fact(FreeBytes, folder=folder)
    if wanted + RESERVE_BYTES > free:
        names = ", ".join(one.name for one in missing)
        raise DeployError(
            f"{folder} has {free / 1e9:.1f} GB free, and {names} needs {(wanted + RESERVE_BYTES) / 1e9:.1f} GB: "
            "make room, or set paths.models"
        )
