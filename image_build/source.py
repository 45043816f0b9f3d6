"""The checkout that an image is built from."""

import re
import subprocess
from pathlib import Path

from image_build.errors import ImageError

_NUMBER = re.compile(r"[0-9]{1,11}")


def checkout() -> Path:
    """Return the folder of the sources that this program is part of.

    Raises:
        ImageError: it is not run from a checkout.
    """
    top = Path(__file__).resolve().parent.parent
    if not (top / "requirements" / "appliance.txt").is_file():
        raise ImageError(f"images are built from a checkout of Rouse's sources, and {top} is none")
    return top


def source_epoch(top: Path, given: str | None) -> int:
    """Return the time stamp of everything in the image, in seconds since 1970.

    It is SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/) if given, else the time of the
    checkout's last commit.

    Raises:
        ImageError: it is no number, or there is no commit.
    """
    if given:
        if _NUMBER.fullmatch(given) is None:
            raise ImageError(f"SOURCE_DATE_EPOCH should be a number of seconds since 1970, and is {given!r}")
        return int(given)
    command = ["git", "-C", str(top), "log", "-1", "--format=%ct"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    if found.returncode != 0:
        raise ImageError(f"the time of the last commit is not known (set SOURCE_DATE_EPOCH): {found.stderr.strip()}")
    return int(found.stdout)
