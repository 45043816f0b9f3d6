"""Recorded demand: when which expert was asked, from a file.

CSV with a first line `time,expert` and, where it is known, `seconds` (how long the answer took), as the hub keeps it in
`requests.csv`; or JSON lines, `{"time": 1764338400.1, "expert": "small"}`. Times are Unix times, or ISO 8601 with an
offset. The order of the lines does not matter.
"""

import csv
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.power.simulate.errors import DemandFileError

MOST_LINES = 10_000_000
LONGEST_LINE = 10_000
LONGEST_NAME = 200
EARLIEST, LATEST = 946_684_800.0, 4_102_444_800.0
"""The years 2000 to 2100."""
MOST_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """The requests for one expert, in the order of time."""

    expert: str
    times: NDArray[np.float64]
    seconds: NDArray[np.float64]
    """How long each was answered; NaN where that is not known."""


type Recording = tuple[Recorded, ...]


def read_recording(path: Path) -> Recording:
    """Return what is recorded in a file, by expert.

    Raises:
        DemandFileError: it can't be read, or a line is wrong; the message names the line.
    """
    found: dict[str, tuple[array[float], array[float]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _bounded(file, path)
            for number, row in _jsonl(lines, path) if path.suffix in {".jsonl", ".ndjson"} else _csv(lines, path):
                expert, moment, seconds = _checked(row, path, number)
                times, lengths = found.setdefault(expert, (array("d"), array("d")))
                times.append(moment)
                lengths.append(seconds)
    except OSError as error:
        raise DemandFileError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DemandFileError(f"{path}: is not a text in UTF-8") from error
    if not found:
        raise DemandFileError(f"{path}: holds no request")
    return tuple(_in_order(expert, *found[expert]) for expert in sorted(found))


def _in_order(expert: str, times: array[float], seconds: array[float]) -> Recorded:
    order = np.argsort(times, kind="stable")
    return Recorded(expert, np.array(times)[order], np.array(seconds)[order])


def _bounded(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if number > MOST_LINES:
            raise DemandFileError(f"{path}: has more than {MOST_LINES:,} lines")
        if len(line) > LONGEST_LINE:
            raise DemandFileError(f"{path}:{number}: the line is longer than {LONGEST_LINE:,} characters")
        yield line


def _csv(lines: Iterator[str], path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not {"time", "expert"} <= set(header) or not set(header) <= {"time", "expert", "seconds"}:
            raise DemandFileError(
                f"{path}:1: expected the columns time,expert or time,expert,seconds (JSON lines must end in .jsonl)"
            )
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DemandFileError(f"{path}:{reader.line_num}: expected {len(header)} values, found {len(row)}")
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DemandFileError(f"{path}:{reader.line_num}: is not CSV: {error}") from error


def _jsonl(lines: Iterator[str], path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DemandFileError(f"{path}:{number}: is not JSON") from error
        if not isinstance(row, dict):
            raise DemandFileError(
                f'{path}:{number}: expected an object such as {{"time": 1764338400.1, "expert": "small"}}'
            )
        yield number, row


def _checked(row: Mapping[str, Any], path: Path, number: int) -> tuple[str, float, float]:
    expert = row.get("expert")
    if not isinstance(expert, str) or not expert.strip() or len(expert) > LONGEST_NAME or not expert.isprintable():
        raise DemandFileError(f"{path}:{number}: expert: expected a name")
    moment = _time(row.get("time"))
    if moment is None:
        raise DemandFileError(
            f"{path}:{number}: time: expected a Unix time, or one such as 2026-11-28T14:00:00+01:00 with its offset"
        )
    if not EARLIEST <= moment <= LATEST:
        raise DemandFileError(f"{path}:{number}: time: is not in the years 2000 to 2100")
    given = row.get("seconds")
    seconds = math.nan if given is None or given == "" else _number(given)
    if seconds is None or not (math.isnan(seconds) or 0 <= seconds <= MOST_SECONDS):
        raise DemandFileError(f"{path}:{number}: seconds: expected a number from 0 to {MOST_SECONDS:g}")
    return expert.strip(), moment, seconds


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _time(value: object) -> float | None:
    if (number := _number(value)) is not None:
        return number
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None
