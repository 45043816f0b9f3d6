"""What is remembered of backups between two runs, and told to Prometheus.

The node exporter reads the metrics from a text file, because no process of ours is there when they are asked for.
https://github.com/prometheus/node_exporter#textfile-collector
"""

from pathlib import Path
from typing import Annotated

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance import durable_files
from appliance.backup.errors import StateError

_NAME = "record.json"
METRICS_NAME = "rouse_backup.prom"

Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """The record. Times are Unix time, 0 for never."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str | None = None
    """Where the last good backup went."""
    attempted: Moment = 0
    succeeded: Moment = 0
    files: Count = 0
    size: Count = 0
    added: Count = 0
    """Bytes that the last backup added to the repository."""
    seconds: Moment = 0
    problems: Count = 0
    verified: Moment = 0
    """When a verification last found all well."""
    verification_attempted: Moment = 0
    next_part: Count = 0
    """The part that the next verification reads."""
    password_shown: bool = False
    """Whether somebody has seen the password, and may have it elsewhere."""


class RecordBook:
    """The record's file and the metrics' file."""

    def __init__(self, folder: Path, *, metrics: Path) -> None:
        """Take the folder of the record, and the node exporter's."""
        self._path = folder / _NAME
        self._metrics = metrics

    def read(self) -> Record:
        """Return the record; an empty one where there is none, or where it is damaged: no backup may fail by that."""
        try:
            return Record.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return Record()

    def write(self, record: Record) -> None:
        """Keep a record. Raises StateError."""
        try:
            durable_files.write(self._path, record.model_dump_json(indent=1).encode(), mode=0o600)
            if self._metrics.is_dir():
                durable_files.write(self._metrics / METRICS_NAME, generate_latest(metrics(record)), mode=0o644)
        except OSError as error:
            raise StateError(f"{error.filename or self._path}: can't be written: {error.strerror}") from error


def metrics(record: Record) -> CollectorRegistry:
    """Return a record as metrics."""
    registry = CollectorRegistry()
    for name, text, value in (
        ("last_success_timestamp_seconds", "When a backup last ended well; 0 for never.", record.succeeded),
        ("last_attempt_timestamp_seconds", "When a backup last began.", record.attempted),
        ("duration_seconds", "How long the last good backup took.", record.seconds),
        ("files", "Files in the last good backup.", record.files),
        ("size_bytes", "Size of all files in the last good backup.", record.size),
        ("added_bytes", "What the last good backup added to the repository.", record.added),
        ("problems", "Files that the last good backup could not copy as it should.", record.problems),
        (
            "last_verification_timestamp_seconds",
            "When a verification last found all well; 0 for never.",
            record.verified,
        ),
        (
            "last_verification_attempt_timestamp_seconds",
            "When a verification last began.",
            record.verification_attempted,
        ),
        ("password_shown", "1 once somebody has seen the backup's password.", float(record.password_shown)),
    ):
        Gauge(f"rouse_backup_{name}", text, registry=registry).set(value)
    return registry
