"""The folder's own record of what was added: checksum, where it came from, and who vouches for it.

A later `verify` is against this record, so a file that the catalogue has no checksum of can be verified too.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from appliance.models.catalogue import Bytes, FileName, ModelId, Sha256
from appliance.models.errors import CatalogueError
from appliance.models.part import sync_folder

RECORD_NAME = ".rouse-models.json"
_MAX_BYTES = 4 << 20

type Voucher = Literal["catalogue", "user", "source", "nobody"]
"""Whose checksum the download was compared with."""


class Record(BaseModel):
    """What is known of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelId | None = None
    """Its id in the catalogue, if it is from there."""
    size: Bytes
    sha256: Sha256
    voucher: Voucher
    source: Annotated[str, StringConstraints(max_length=4096)]
    """Where it came from, without user and query."""
    revision: Annotated[str, StringConstraints(max_length=64)] | None = None
    added: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    files: Annotated[Mapping[FileName, Record], Field(max_length=10_000)] = Field(default_factory=dict)


def read_records(folder: Path) -> dict[str, Record]:
    """Return the folder's records by file name; none where nothing was added yet.

    Raises:
        CatalogueError: the record is damaged.
    """
    path = folder / RECORD_NAME
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CatalogueError(f"{path}: can't be read: {error.strerror}") from error
    try:
        return dict(_Document.model_validate_json(data).files)
    except ValidationError:
        raise CatalogueError(
            f"{path}: is damaged; remove it, then `rouse model add` each model again, which compares what is here"
        ) from None


def write_records(folder: Path, records: Mapping[str, Record]) -> None:
    """Write the folder's records, whole or not at all. The caller holds the folder's lock."""
    path = folder / RECORD_NAME
    draft = path.with_name(RECORD_NAME + ".new")
    draft.write_text(_Document(files=records).model_dump_json(indent=1), encoding="utf-8")
    draft.replace(path)
    sync_folder(folder)
