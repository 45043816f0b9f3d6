"""Puts partitions together to a disk image."""

from pathlib import Path

from image_build.cache import remove
from image_build.layout import MIB, SECTOR, Partition, Platform, disk_size, identity, partitions
from image_build.pack import Contents
from image_build.sandbox import Sandbox


def make_disk(contents: Contents, target: Path, *, platform: Platform, version: str, tools: Sandbox) -> None:
    """Write a disk image, as a sparse file.

    Raises:
        StepError: the partition table can't be written.
    """
    parts = partitions(platform, version, contents.root_hash, contents.var.stat().st_size)
    remove(target)
    with target.open("wb") as file:
        file.truncate(disk_size(parts))
    tools.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "/run/disk"],
        binds={target: "/run/disk"},
        stdin=table(parts),
    )
    sources = {
        "esp": contents.esp,
        "config": contents.config,
        "root-a": contents.root,
        "verity-a": contents.verity,
        "var": contents.var,
    }
    for part in parts:
        if part.name in sources:
            _place(sources[part.name], target, part.start)


def table(parts: tuple[Partition, ...]) -> str:
    """Return the partition table in the language of sfdisk(8)."""
    lines = ["label: gpt", f"label-id: {identity('disk')}", "unit: sectors", f"sector-size: {SECTOR}"]
    lines += [
        f"start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.type}, uuid={part.identity}, "
        f'name="{part.label}"'
        for part in parts
    ]
    return "\n".join(lines) + "\n"


def _place(source: Path, disk: Path, offset: int) -> None:
    """Copy a file into the disk, leaving out what is zero."""
    zero = bytes(MIB)
    with source.open("rb") as reader, disk.open("r+b") as writer:
        while block := reader.read(MIB):
            if block != zero[: len(block)]:
                writer.seek(offset)
                writer.write(block)
            offset += len(block)
