"""Where measurements are kept: one JSON file for each machine, model and way of loading it."""

import contextlib
import hashlib
import logging
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance import durable_files
from appliance.experts.tuning.costs import CostModel

_log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 16


class Subject(BaseModel):
    """What a measurement is of; any difference makes it another's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    """Model name."""
    microcode: str
    physical_cores: int
    logical_cores: int
    """Those that the process may use."""
    backend: str
    """CPU variant, and what else llama.cpp computes on."""
    llama_cpp: str
    """Version of llama-cpp-python, which brings llama.cpp."""
    model: str
    """`identity.fingerprint` of the file."""
    slots: int
    batch_tokens: int

    @property
    def key(self) -> str:
        """A file name's worth of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:24]


class Tuning(BaseModel):
    """A measurement that can be relied on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    subject: Subject
    measured: datetime
    threads: Annotated[int, Field(ge=1, le=1024)]
    costs: CostModel


class TuningStore:
    """A folder of measurements. What is damaged or of another subject is measured again, never used."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made when something is first kept."""
        self._folder = folder

    def path(self, subject: Subject) -> Path:
        """Return where a subject's measurement is kept."""
        return self._folder / f"{subject.key}.json"

    def load(self, subject: Subject) -> Tuning | None:
        """Return what was kept of a subject, None if there is nothing to rely on."""
        path = self.path(subject)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s: can't be read (%s); measuring again", path, error.strerror)
            return None
        if len(text) > MAX_FILE_BYTES:
            _log.warning("%s: is too long for a measurement; measuring again", path)
            return None
        try:
            tuning = Tuning.model_validate_json(text)
        except ValidationError as error:
            _log.warning("%s: is damaged (%d faults); measuring again", path, error.error_count())
            return None
        if tuning.subject != subject:
            _log.warning("%s: is of another machine or model; measuring again", path)
            return None
        return tuning

    def keep(self, subject: Subject, *, threads: int, costs: CostModel) -> None:
        """Write a measurement, whole or not at all; a folder that can't be written is only a warning."""
        tuning = Tuning(
            subject=subject, measured=datetime.now(UTC).replace(microsecond=0), threads=threads, costs=costs
        )
        path = self.path(subject)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(tuning.model_dump_json(indent=1) + "\n")
                    durable_files.adopt(descriptor, path.parent)
                Path(draft).replace(path)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    Path(draft).unlink()
                raise
        except OSError as error:
            _log.warning("%s: can't be written (%s); the next start measures again", path, error.strerror)
