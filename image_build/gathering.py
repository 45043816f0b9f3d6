"""A folder of wheels that live machines are deployed from: flat, with a list that names each wheel by its hash."""

import hashlib
import re
import shutil
from pathlib import Path

from image_build.cache import remove
from image_build.errors import StepError
from image_build.wheelhouse import Wheelhouse

LIST = "requirements.txt"
_NAME = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(-[0-9][^-]*)?-[^-]+-[^-]+-[^-]+\.whl")


def gather(wheelhouse: Wheelhouse, folder: Path) -> Path:
    """Copy the wheels into a new folder, which takes the place of what is there.

    Raises:
        StepError: a file is no wheel, or the folder is something else's.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / LIST).is_file():
        raise StepError(f"{folder} holds something else: name a folder that is empty or not there")
    new = folder.with_name(f"{folder.name}.new")
    remove(new)
    new.mkdir(parents=True)
    built = [path for place in wheelhouse.built for path in sorted(place.glob("*.whl"))]
    for path in (*sorted(wheelhouse.locked.glob("*.whl")), *built):
        shutil.copyfile(path, new / path.name)
    lines = [_pinned(path) for path in built]
    (new / LIST).write_text("\n".join([wheelhouse.requirements.read_text().rstrip("\n"), *lines]) + "\n")
    remove(folder)
    new.rename(folder)
    return folder


def _pinned(wheel: Path) -> str:
    """Return the line of a list of requirements that a wheel alone fits."""
    match = _NAME.fullmatch(wheel.name)
    if match is None:
        raise StepError(f"{wheel} is no wheel")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{match['name'].replace('_', '-')}=={match['version']} --hash=sha256:{digest}"
