"""Looks at what was published."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from image_build.errors import ImageError
from image_build.layout import MIB, PLATFORMS, Architecture, partitions
from image_build.signing import SIGNATURE


class Manifest(BaseModel):
    """What a build says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    architecture: Architecture
    root_hash: str
    source_date_epoch: int
    var_size: int


class FileFound(BaseModel):
    """A published file; its size in bytes."""

    name: str
    size: int


class PartitionFound(BaseModel):
    """A partition; its size in bytes."""

    name: str
    label: str
    identity: str
    size: int


class Inspection(BaseModel):
    """All that can be seen without booting."""

    manifest: Manifest
    files: tuple[FileFound, ...]
    partitions: tuple[PartitionFound, ...]
    debian_packages: int
    python_packages: int
    signed: bool

    def files_table(self) -> Table:
        """Return the files as a table."""
        table = Table(title="Files", title_justify="left")
        table.add_column("File")
        table.add_column("MB", justify="right")
        for file in self.files:
            table.add_row(file.name, f"{file.size / 1e6:,.1f}")
        return table

    def partitions_table(self) -> Table:
        """Return the partitions as a table."""
        table = Table(title="Partitions", title_justify="left")
        for column in ("Partition", "Label", "UUID"):
            table.add_column(column)
        table.add_column("MiB", justify="right")
        for part in self.partitions:
            table.add_row(part.name, part.label, part.identity, f"{part.size // MIB:,}")
        return table

    def summary(self) -> str:
        """Return the rest in a few lines."""
        return (
            f"Version {self.manifest.version} for {self.manifest.architecture}, root hash {self.manifest.root_hash}\n"
            f"{self.debian_packages} Debian packages, {self.python_packages} Python packages, "
            f"{'signed' if self.signed else 'not signed'}"
        )


def read_manifest(folder: Path) -> Manifest:
    """Read what a build says of itself.

    Raises:
        ImageError: there is no such file, more than one, or it can't be read.
    """
    found = [path for path in folder.glob("rouse_*.json") if not path.name.endswith(".cdx.json")]
    if len(found) != 1:
        raise ImageError(f"{folder} should hold one build, and has {len(found)} files like rouse_VERSION_ARCH.json")
    try:
        return Manifest.model_validate_json(found[0].read_bytes())
    except (OSError, ValidationError) as error:
        raise ImageError(f"{found[0]} can't be read: {error}") from error


def inspect(folder: Path) -> Inspection:
    """Look at a folder that `rouse image build` wrote.

    Raises:
        ImageError: it does not hold a build.
    """
    manifest = read_manifest(folder)
    bill = next(iter(folder.glob("*.cdx.json")), None)
    try:
        components = json.loads(bill.read_bytes())["components"] if bill is not None else []
        kinds = [str(component.get("purl", "")).partition("/")[0] for component in components]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ImageError(f"{bill} can't be read: {error}") from error
    return Inspection(
        manifest=manifest,
        files=tuple(FileFound(name=path.name, size=path.stat().st_size) for path in sorted(folder.iterdir())),
        partitions=tuple(
            PartitionFound(name=part.name, label=part.label, identity=str(part.identity), size=part.size)
            for part in partitions(
                PLATFORMS[manifest.architecture], manifest.version, manifest.root_hash, manifest.var_size
            )
        ),
        debian_packages=kinds.count("pkg:deb"),
        python_packages=kinds.count("pkg:pypi"),
        signed=(folder / SIGNATURE).is_file(),
    )
