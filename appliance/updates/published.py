"""What a publisher's SHA256SUMS says: versions, and the three files that each is made of."""

import re
from dataclasses import dataclass
from typing import Literal

from appliance.updates.errors import SourceError
from appliance.updates.versions import VERSION, newest_first

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.gpg"
MOST_SUMS_BYTES = 1 << 20
MOST_SIGNATURE_BYTES = 64 << 10

type Architecture = Literal["amd64", "arm64"]
type Kind = Literal["root", "verity", "efi"]
KINDS: tuple[Kind, ...] = ("verity", "root", "efi")
"""In the order in which they are installed; the kernel is what makes a version known to the boot loader."""

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>[^/\0]+)")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME = re.compile(
    rf"rouse_(?P<version>{VERSION})_(?P<architecture>amd64|arm64)(?:_(?P<part>{_UUID}))?\.(?P<kind>root|verity|efi)"
)


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of a version."""

    name: str
    sha256: str
    kind: Kind
    part: str | None
    """Identifier of the partition that it goes to; None for the kernel."""


@dataclass(frozen=True, slots=True)
class Release:
    """A version, complete."""

    version: str
    files: tuple[PublishedFile, ...]
    """In the order of `KINDS`."""


def read_sums(text: bytes, architecture: Architecture) -> tuple[Release, ...]:
    """Return the complete versions for an architecture, newest first.

    Raises:
        SourceError: this is no list of checksums, or it contradicts itself.
    """
    found: dict[str, dict[Kind, PublishedFile]] = {}
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{SUMS} is no text") from error
    for number, line in enumerate(lines, 1):
        sum_ = _LINE.fullmatch(line)
        if sum_ is None:
            raise SourceError(f"{SUMS}, line {number}: this is no checksum and file name")
        name = _NAME.fullmatch(sum_["name"])
        if name is None or name["architecture"] != architecture:
            continue
        file = _file(sum_["digest"], name)
        files = found.setdefault(name["version"], {})
        if file.kind in files:
            raise SourceError(f"{SUMS}, line {number}: there are two files .{file.kind} of version {name['version']}")
        files[file.kind] = file
    complete = [
        Release(version, tuple(files[kind] for kind in KINDS))
        for version, files in found.items()
        if all(kind in files for kind in KINDS)
    ]
    return tuple(sorted(complete, key=lambda release: newest_first(release.version)))


def _file(digest: str, name: re.Match[str]) -> PublishedFile:
    kinds: dict[str, Kind] = {kind: kind for kind in KINDS}
    kind = kinds[name["kind"]]
    if (name["part"] is None) != (kind == "efi"):
        raise SourceError(f"{SUMS}: {name[0]} should {'not ' if kind == 'efi' else ''}name a partition")
    return PublishedFile(name[0], digest, kind, name["part"])
