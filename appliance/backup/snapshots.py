"""The backups that a repository has of this machine, and of others that share it."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from appliance.backup.errors import MissingError, RepositoryError
from appliance.backup.restic import Restic

TAG = "rouse"
LATEST = "latest"
_SNAPSHOT = re.compile(r"[0-9a-f]{4,64}")


class Snapshot(BaseModel):
    """One backup, as restic lists it; what else restic says of it is left aside."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    time: AwareDatetime
    hostname: Annotated[str, StringConstraints(max_length=255)]
    tags: tuple[str, ...] = ()
    summary: Mapping[str, object] = Field(default_factory=dict)
    """How large it was; versions of restic before 0.17 do not say."""

    @property
    def short(self) -> str:
        """What people call it."""
        return self.id[:8]

    @property
    def size(self) -> int | None:
        """Bytes of all of its files."""
        found = self.summary.get("total_bytes_processed")
        return found if isinstance(found, int) else None


def snapshots(restic: Restic, *, node: str | None = None) -> list[Snapshot]:
    """Return the backups of one node, or of all, oldest first.

    Raises:
        BackupError: the repository can't be read.
    """
    limits = ("--host", node) if node is not None else ()
    try:
        found = [Snapshot.model_validate(item) for item in restic.messages("snapshots", "--tag", TAG, *limits)]
    except ValidationError as error:
        raise RepositoryError(f"{restic.repository}: restic lists a backup that can't be understood") from error
    return sorted(found, key=lambda snapshot: snapshot.time)


def chosen(restic: Restic, wanted: str, *, node: str) -> Snapshot:
    """Return the backup that a person means: `latest` of this node, or an id's beginning, of any node.

    Raises:
        MissingError: there is none, or more than one begins so.
        BackupError: the repository can't be read.
    """
    if wanted == LATEST:
        own = snapshots(restic, node=node)
        if not own:
            there = sorted({snapshot.hostname for snapshot in snapshots(restic)})
            others = f"; there are backups of {', '.join(there)}: name one by its id" if there else ""
            raise MissingError(f"{restic.repository}: there is no backup of {node}{others}")
        return own[-1]
    every = snapshots(restic) if _SNAPSHOT.fullmatch(wanted) else []
    found = [snapshot for snapshot in every if snapshot.id.startswith(wanted)]
    if len(found) != 1:
        problem = "more than one backup has this id" if found else "there is no such backup"
        raise MissingError(f"{wanted}: {problem}; `rouse backup list --all` shows what there is")
    return found[0]
