"""Where things are kept: space, and the kind of file system."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.preflight.dump import Dump, number
from appliance.preflight.result import ROLES, Result, amount
from appliance.preflight.wanted import Wanted
from appliance.settings.section import Role

STATE_BYTES = 1 << 30
"""Room for what the appliance itself keeps: databases, logs, packages to update."""
_LASTING = frozenset({"ext4", "ext3", "xfs", "btrfs", "f2fs", "zfs", "bcachefs"})
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "overlay", "rootfs"})


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Where a folder is, or would be made."""

    source: str
    mount: str
    free: int
    kind: str | None = None
    read_only: bool = False


def read_file_system(dump: Dump, name: str) -> FileSystem | None:
    """Return the file system of `state` or `models`."""
    lines = (dump.command(f"df.{name}") or "").split("\n")
    match = re.fullmatch(r"(.+?)\s+[0-9]{1,18}\s+[0-9]{1,18}\s+([0-9]{1,18})\s+\S+\s+(/.*)", lines[-1].strip())
    if match is None:
        return None
    kind, options = _mounted(dump, match[3])
    return FileSystem(match[1], match[3], int(match[2]) * 1024, kind, "ro" in options)


def _mounted(dump: Dump, mount: str) -> tuple[str | None, frozenset[str]]:
    """Return kind and options of the file system that is mounted there last (mountinfo in proc(5)).

    The mount's own options don't count: for a service, systemd's sandbox has most of them read-only.
    """
    kind, options = None, frozenset[str]()
    for line in (dump.file("/proc/self/mountinfo") or "").split("\n"):
        before, separator, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if separator and len(fields) > 5 and len(more) > 2 and fields[4] == mount.replace(" ", "\\040"):
            kind, options = more[0], frozenset(more[2].split(","))
    return kind, options


def check_storage(dump: Dump, wanted: Wanted) -> Iterator[Result]:
    """Check space and file system where things are kept."""
    state, models = read_file_system(dump, "state"), read_file_system(dump, "models")
    result = space("disk.state", "Disk for state", state, STATE_BYTES, ROLES)
    yield replace(result, needed=f"{amount(STATE_BYTES)} free at {wanted.state}")
    need, what = models_need(dump, wanted)
    if state is not None and models is not None and state.mount == models.mount:
        need, what = need + STATE_BYTES, f"{what}, and the state on the same file system"
    result = space("disk.models", "Disk for models", models, need, ("expert",))
    yield replace(result, needed=f"{amount(need)} free at {wanted.models}: {what}")
    if state is not None:
        yield file_system(state, wanted.state)


def models_need(dump: Dump, wanted: Wanted) -> tuple[int, str]:
    """Return the bytes that models and prefixes will take beyond what is there, and what for."""
    if not wanted.experts:
        return wanted.smallest, "the smallest model of the catalogue"
    missing = [one for one in wanted.experts if not _size(dump, one.file)]
    need = sum(one.disk or 0 for one in missing) + sum(one.disk_for_prefixes for one in wanted.experts)
    unknown = [one.name for one in missing if one.disk is None]
    what = "prompts' prefixes"
    if missing:
        what = f"{what}, models of {', '.join(one.name for one in missing)} to download"
    if unknown:
        what = f"{what} (size not known: {', '.join(unknown)})"
    return need, what


def _size(dump: Dump, path: str) -> int | None:
    fields = (dump.command(f"file {path}") or "").split()
    return number(fields[4]) if len(fields) > 4 else None


def space(name: str, title: str, found: FileSystem | None, need: int, roles: tuple[Role, ...]) -> Result:
    """Check the free space of a file system."""
    if found is None:
        return Result(name, title, "unknown", "the file system does not tell its size")
    text = f"{amount(found.free)} free on {found.mount}"
    remedy = f"Make room on {found.mount}, or put paths.state and paths.models on another disk."
    if found.free < need:
        return Result(name, title, "bad", text, remedy=remedy, unfit=roles)
    if found.free < 2 * need:
        return Result(name, title, "warn", text, remedy=remedy)
    return Result(name, title, "ok", text)


def file_system(found: FileSystem, path: str) -> Result:
    """Check what kind of file system the state is on."""
    text = f"{found.kind or 'unknown'} on {found.source}"
    needed = f"for {path}: writable, there after a restart, with permissions that keep secrets"
    result = Result("disk.file-system", "File system", "ok", text, needed, f"Put {path} on ext4, xfs or btrfs.")
    if found.read_only:
        return replace(result, verdict="bad", found=f"{text}, read-only", unfit=ROLES)
    if found.kind is None:
        return replace(result, verdict="unknown", remedy="")
    if found.kind in _IN_MEMORY:
        return replace(result, verdict="warn", found=f"{text}, which a restart may empty", limits=ROLES)
    if found.kind not in _LASTING:
        return replace(result, verdict="warn", limits=ROLES)
    return replace(result, remedy="")
