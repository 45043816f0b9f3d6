"""Carries out what the file says, at each start, and tells what is wrong with it.

A good file is first copied to the state folder, whole or not at all; only from that copy the system is changed, file
by file. When the power goes in between, the next start does the rest. A bad file changes nothing: the copy of the
last good one stays.
"""

import contextlib
import hashlib
import json
import logging
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from appliance.firstboot import files
from appliance.firstboot.candidate import FILE_NAME, Candidate, find_file, read_candidate
from appliance.firstboot.errors import ApplyError, RefusedFileError
from appliance.firstboot.mount import writable
from appliance.firstboot.password import set_password
from appliance.firstboot.plan import ADMINISTRATOR, ZONES, Plan, own_host_name, plan
from appliance.firstboot.planned import PlannedFile
from appliance.firstboot.report import ERRORS_NAME, STATUS_FILE, Status, errors_text
from appliance.settings.errors import Problem
from appliance.settings.source import Source

_log = logging.getLogger(__name__)

STATE = Path("var/lib/rouse/first-boot")
_LOCAL_TIME = "etc/localtime"
_UNNAMED = frozenset({"", "localhost", "debian", "localhost.localdomain"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    status: Status
    changed: tuple[str, ...] = field(default=())
    """Paths that were written or removed, below the root."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The system to be changed."""

    root: Path = Path("/")
    administrator: str = ADMINISTRATOR

    @property
    def state(self) -> Path:
        """The folder with the last good file; root's alone, because of its secrets."""
        return self.root / STATE

    @property
    def accepted(self) -> Path:
        """The last good file."""
        return self.state / FILE_NAME

    @property
    def kept(self) -> Path:
        """Secrets that were moved out of the file."""
        return self.state / "secrets.json"

    @property
    def config_dir(self) -> Path:
        """Folder of the settings."""
        return self.root / "etc/rouse"

    @property
    def hostname(self) -> str:
        """The name that chooses the host file, which is the one before this start."""
        try:
            return (self.root / "etc/hostname").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""


def apply(folder: Path, machine: Machine) -> Outcome:
    """Read the file in `folder` and bring the machine in line with it.

    Raises:
        ApplyError: the machine can't be changed.
    """
    files.make_private_folder(machine.state)
    problems: tuple[Problem, ...] = ()
    found = False
    try:
        path = find_file(folder)
        if path is not None:
            found = True
            candidate = _read(path, machine, kept=machine.kept)
            files.write(machine.accepted, candidate.content, mode=0o600)
    except RefusedFileError as error:
        found, problems = True, error.problems
    wanted = _accepted(machine)
    hashed = wanted.password_hash.get_secret_value() if wanted is not None and wanted.password_hash else None
    changed = (*_carry_out(wanted, machine), *set_password(machine.root, machine.administrator, hashed))
    status = Status("bad" if problems else "good" if found else "none", problems, kept=wanted is not None)
    _tell(folder, machine, status)
    return Outcome(status, changed)


def _read(path: Path, machine: Machine, kept: Path | None) -> Candidate:
    candidate = read_candidate(path, config_dir=machine.config_dir, hostname=machine.hostname, kept=kept)
    zone = candidate.settings.system.time_zone
    zones = machine.root / ZONES
    if zone is not None and zones.is_dir() and not (zones / zone).is_file():
        text = f"this system has no data of the time zone {zone}; take one of a city, such as Europe/Berlin"
        raise RefusedFileError([Problem(Source("first-boot", path), "system.time_zone", text)])
    return candidate


def _accepted(machine: Machine) -> Plan | None:
    """Return what the last good file asks for. After an update, even that may no longer be understood."""
    if not machine.accepted.exists():
        return None
    try:
        candidate = _read(machine.accepted, machine, kept=None)
    except RefusedFileError as error:
        _log.error("the last good file is no longer understood; nothing is changed: %s", error)
        return None
    return plan(candidate.settings, candidate.content, administrator=machine.administrator)


def _carry_out(wanted: Plan | None, machine: Machine) -> Iterator[str]:
    if wanted is None:
        yield from _name_the_nameless(machine)
        return
    ledger = machine.state / "files.json"
    written = _read_ledger(ledger)
    digests = {file.path: hashlib.sha256(file.content).hexdigest() for file in wanted.files}
    if wanted.time_zone is not None:
        digests[_LOCAL_TIME] = wanted.time_zone
    gone = written.keys() - digests.keys()
    # Noted before anything is written: what this start begins, a later one may have to remove.
    _write_ledger(ledger, {**dict.fromkeys(digests, ""), **written})
    for path in sorted(gone):
        if files.remove(machine.root / path):
            yield path
    for file in wanted.files:
        if _write(file, machine, unchanged=written.get(file.path) == digests[file.path]):
            yield file.path
    if wanted.time_zone is not None and files.link(machine.root / _LOCAL_TIME, f"../{ZONES}/{wanted.time_zone}"):
        yield _LOCAL_TIME
    _write_ledger(ledger, digests)
    if wanted.hostname is not None:
        _call_machine(wanted.hostname, machine)
    else:
        yield from _name_the_nameless(machine)


def _write(file: PlannedFile, machine: Machine, *, unchanged: bool) -> bool:
    path = machine.root / file.path
    if file.adopted and unchanged and path.exists():
        return False
    group = files.group_number(machine.root, file.group) if file.group is not None else None
    if file.group is not None and group is None:
        _log.warning("/%s: there is no group %s, so that only root can read it", file.path, file.group)
    return files.write(path, file.content, mode=file.mode, group=group)


def _name_the_nameless(machine: Machine) -> Iterator[str]:
    """Two machines from one image would have one name."""
    if machine.hostname not in _UNNAMED:
        return
    with contextlib.suppress(FileNotFoundError):
        machine_id = (machine.root / "etc/machine-id").read_text(encoding="ascii").strip()
        name = own_host_name(machine_id)
        if files.write(machine.root / "etc/hostname", f"{name}\n".encode(), mode=0o644):
            yield "etc/hostname"
        _call_machine(name, machine)


def _call_machine(name: str, machine: Machine) -> None:
    if machine.root == Path("/") and socket.gethostname() != name:
        try:
            socket.sethostname(name)
        except OSError as error:
            raise ApplyError(f"the host name can't be set: {error.strerror}; run it as root") from error


def _tell(folder: Path, machine: Machine, status: Status) -> None:
    content = json.dumps(status.as_json(), indent=2).encode()
    files.write(machine.root / STATUS_FILE.relative_to("/"), content, mode=0o644)
    beside = folder / ERRORS_NAME
    if status.state != "bad" and not beside.exists():
        return
    try:
        with writable(folder):
            if status.state == "bad":
                files.write(beside, errors_text(status, file=FILE_NAME).encode(), mode=_mode_in(folder))
            else:
                files.remove(beside)
    except (ApplyError, OSError) as error:
        _log.warning("the report can't be put beside the file: %s", error)


def _mode_in(folder: Path) -> int:
    """Return the mode that new files have: FAT keeps none, and all files there have the one of the mount."""
    return folder.stat().st_mode & 0o666


def _read_ledger(path: Path) -> dict[str, str]:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in told.items()}


def _write_ledger(path: Path, digests: Mapping[str, str]) -> None:
    files.write(path, json.dumps(digests, indent=2, sort_keys=True).encode(), mode=0o600)
