"""What a backup says of itself: each file with its owner and checksum, and the models that are not in it.

Owners are kept by name: after a new installation a service's user may have another number.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from appliance.backup.errors import DamagedError
from appliance.settings.section import Name, Role

NAME = "manifest.json"
LARGEST_BYTES = 256 << 20
"""About a million files; a manifest that is larger is none of ours."""

TOPS = frozenset({"state", "config", "include"})
"""What is in a backup beside the manifest: the state folder, the settings, and what `backup.include` names."""

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Account = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f/:]+$")]
"""A user's or group's name, or its number where it has no name."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Entry(_Part):
    """A file, folder or symbolic link."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=8192)]
    kind: Literal["file", "folder", "link"]
    mode: Annotated[int, Field(ge=0, le=0o7777)]
    user: Account
    group: Account
    size: Annotated[int, Field(ge=0)] = 0
    sha256: Sha256 | None = None
    """Of a file's content, or of a link's target."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = PurePosixPath(self.path).parts
        if parts[0] not in TOPS or ".." in parts or "\0" in self.path or str(PurePosixPath(self.path)) != self.path:
            raise ValueError("is no path of a backup")
        if (self.kind == "folder") == (self.sha256 is not None):
            raise ValueError("files and links have a checksum, folders have none")
        return self


class Model(_Part):
    """A model file that the machine had; the file itself is not in the backup."""

    name: Annotated[str, StringConstraints(max_length=255)]
    size: Annotated[int, Field(ge=0)]
    model: str | None = None
    """Its id in the catalogue, by which `rouse model add` gets it again."""
    sha256: Sha256 | None = None


class Manifest(_Part):
    """The whole."""

    version: Literal[1] = 1
    node: Name
    roles: tuple[Role, ...]
    rouse: Annotated[str, StringConstraints(max_length=64)]
    """Version of Rouse that made it."""
    made: AwareDatetime
    entries: tuple[Entry, ...]
    models: tuple[Model, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be copied as it should, in sentences."""

    def __len__(self) -> int:
        """Return the number of files."""
        return sum(entry.kind == "file" for entry in self.entries)


def read_manifest(content: bytes) -> Manifest:
    """Return the manifest that was written.

    Raises:
        DamagedError: it is none.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedError(f"{NAME} of the backup: {where or 'it'}: {first['msg']}") from None
