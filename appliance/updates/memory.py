"""What the node daemon remembers of updates between its starts, and the history that people read."""

import json
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance import durable_files
from appliance.updates.records import Sentence, Version, read, write

_ATTEMPT = "attempt.json"
_MEMORY = "memory.json"
_HISTORY = "history.jsonl"
_MOST_LINES = 500
_MOST_BYTES = 1 << 20

type Result = Literal["installed", "rolled_back", "went_back", "failed"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Attempt(_Model):
    """An update that was begun and is not settled."""

    version: Version
    former: Version
    boot: str
    """The boot in which it was begun."""
    started: float
    back: bool = False
    """Whether it goes back to what was there before."""


class Wish(_Model):
    """An update that was asked for and is being downloaded."""

    version: Version
    downgrade: bool = False


class Memory(_Model):
    """What is known from earlier."""

    latest: Version | None = None
    checked: float | None = None
    skipped: Annotated[tuple[Version, ...], Field(max_length=100)] = ()
    """Versions that did not work here, or that somebody left: they are not installed by themselves."""
    wish: Wish | None = None
    """What to go on with after a restart."""


class Entry(_Model):
    """A line of the history."""

    at: float
    former: Version
    version: Version
    result: Result
    seconds: float | None = None
    """From the beginning to the end, restart included."""
    error: Sentence = ""


class Notebook:
    """Files in the folder of updates. What the disk does not take is forgotten, and no reason to end."""

    def __init__(self, folder: Path) -> None:
        """Take the folder."""
        self._folder = folder

    @property
    def attempt(self) -> Attempt | None:
        """The update that is not settled."""
        return read(self._folder / _ATTEMPT, Attempt)

    def begin(self, attempt: Attempt) -> None:
        """Note that an update begins. Raises OSError."""
        write(self._folder / _ATTEMPT, attempt)

    def forget(self) -> None:
        """Forget the update that is not settled. Raises OSError."""
        durable_files.remove(self._folder / _ATTEMPT)

    @property
    def memory(self) -> Memory:
        """What is known from earlier."""
        return read(self._folder / _MEMORY, Memory) or Memory()

    def remember(self, memory: Memory) -> None:
        """Keep it. Raises OSError."""
        write(self._folder / _MEMORY, memory)

    def settle(self, attempt: Attempt, result: Result, error: str = "") -> None:
        """Note how an update ended. Raises OSError."""
        now = time.time()
        entry = Entry(
            at=now,
            former=attempt.former,
            version=attempt.version,
            result=result,
            seconds=max(0.0, now - attempt.started),
            error=error[:1000],
        )
        lines = [*(known.model_dump_json() for known in self.history()), entry.model_dump_json()]
        durable_files.write(self._folder / _HISTORY, "\n".join([*lines[-_MOST_LINES:], ""]).encode(), mode=0o644)
        durable_files.remove(self._folder / _ATTEMPT)

    def history(self) -> list[Entry]:
        """Return what was done, oldest first."""
        try:
            with (self._folder / _HISTORY).open("rb") as file:
                lines = file.read(_MOST_BYTES).splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(Entry.model_validate(json.loads(line)))
            except (ValueError, ValidationError):
                continue
        return found
