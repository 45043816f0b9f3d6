"""What the two parts of an update, and the boots before and after it, leave for one another; small files of JSON."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from appliance import durable_files
from appliance.updates.versions import VERSION

Version = Annotated[str, StringConstraints(pattern=rf"^{VERSION}$")]
Sentence = Annotated[str, StringConstraints(max_length=1000)]
Url = Annotated[str, StringConstraints(pattern=r"^http://(127\.0\.0\.1|\[::1\]|localhost):\d{1,5}/[a-z/]{0,40}$")]
ExpertName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]

_MOST_BYTES = 256 << 10


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Baseline(_Record):
    """What was up before an update: what must be up again after it."""

    status: Url | None = None
    """Where the node daemon tells its health."""
    gateway: Url | None = None
    """Where the gateway tells its own."""
    experts: Annotated[list[ExpertName], Field(max_length=256)] = []
    """Those that were ready."""
    broker: bool = False
    """Whether the broker was reachable."""


class Before(_Record):
    """The baseline, with the update that it belongs to; the root part's own copy."""

    version: Version
    baseline: Baseline


class Outcome(_Record):
    """How the root part's last work went."""

    version: Version
    ok: bool
    error: Sentence = ""


class Failure(_Record):
    """Why a boot was not healthy."""

    version: Version
    reason: Sentence


def write[R: BaseModel](path: Path, record: R, *, mode: int = 0o644) -> None:
    """Write a record, whole or not at all. Raises OSError."""
    durable_files.write(path, record.model_dump_json().encode(), mode=mode)


def read[R: BaseModel](path: Path, kind: type[R]) -> R | None:
    """Return a record, or None where there is none that can be understood."""
    try:
        with path.open("rb") as file:
            return kind.model_validate_json(file.read(_MOST_BYTES))
    except (OSError, ValidationError):
        return None
