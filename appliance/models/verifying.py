"""Compares the models folder with its record and the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.models.catalogue import Catalogue
from appliance.models.folder import ModelFolder
from appliance.models.part import Count, file_sha256
from appliance.models.record import Voucher, read_records

type Verdict = Literal["good", "bad", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one file."""

    name: str
    verdict: Verdict
    sha256: str | None
    expected: str | None
    voucher: Voucher | None


def names_to_verify(folder: ModelFolder) -> tuple[str, ...]:
    """Return the complete files, and those that the record has and the folder lacks."""
    return tuple(sorted(folder.present().keys() | read_records(folder.path).keys()))


def verify(folder: ModelFolder, names: Sequence[str], catalogue: Catalogue, count: Count) -> list[Verified]:
    """Compute the checksum of each file and compare it with the record, or with the catalogue where there is none."""
    present, records = folder.present(), read_records(folder.path)
    found = []
    for name in names:
        record = records.get(name)
        listed = catalogue.of_file(name)
        expected = record.sha256 if record else (listed[1].sha256 if listed else None)
        voucher: Voucher | None = record.voucher if record else ("catalogue" if expected else None)
        here = present.get(name)
        digest = file_sha256(here.path, count) if here is not None else None
        verdict: Verdict
        if digest is None:
            verdict = "missing"
        elif expected is None:
            verdict = "unknown"
        else:
            verdict = "good" if digest == expected else "bad"
        found.append(Verified(name, verdict, digest, expected, voucher))
    return found
