"""Whether what the repository holds is what was written to it."""

import time
from dataclasses import dataclass

from appliance.backup.errors import DamagedError, RepositoryError
from appliance.backup.place import Place


@dataclass(frozen=True, slots=True)
class Verified:
    """A part that was read and found well."""

    part: int
    parts: int
    seconds: float


def verify(place: Place, *, parts: int, everything: bool = False) -> Verified:
    """Check the repository's structure, and read the part of its data whose turn it is, or everything.

    Raises:
        DamagedError: something is not what was written.
        BackupError: the repository can't be read.
    """
    began = time.time()
    record = place.book.read()
    place.book.write(record.model_copy(update={"verification_attempted": began}))
    part = 1 if everything else record.next_part % parts + 1
    of = 1 if everything else parts
    # First of all, for a check's own failure means damage.
    place.restic.reach()
    try:
        place.restic.run("check", f"--read-data-subset={part}/{of}")
    except RepositoryError as error:
        raise DamagedError(
            f"{error}\nMake a new backup to another place before you repair this one (see docs/backup.md)."
        ) from error
    following = record.next_part if everything else part
    place.book.write(place.book.read().model_copy(update={"verified": time.time(), "next_part": following}))
    return Verified(part, of, time.time() - began)
