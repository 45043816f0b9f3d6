"""The machines: one for each file `hosts/NAME.toml` of the configuration folder, `@local`, and `@chroot/FOLDER`.

A machine's data is its typed settings: defaults < groups/ < hosts/NAME.toml. The first-boot file and environment
variables belong to the machine that runs this, so they count for `@local` only.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.settings import InvalidSettingsError, Settings, load
from appliance.settings.errors import Problem
from appliance.settings.load import FIRST_BOOT_FILE
from appliance.settings.section import Role
from pyinfra_deploys.errors import TargetError

LOCAL = "@local"
CHROOT = "@chroot/"
ROLES: tuple[Role, ...] = ("hub", "expert", "voice", "vision")


@dataclass(frozen=True, slots=True)
class Machine:
    """One target.

    Attributes:
        target: how it is called on the command line: a name, `@local` or `@chroot/FOLDER`.
        name: whose settings it has.
        settings: those.
        any_role: whether its roles are not known yet, so that it has to be ready for each.
    """

    target: str
    name: str
    settings: Settings
    any_role: bool = False

    @property
    def is_chroot(self) -> bool:
        """Whether it is a root file system in a folder."""
        return self.target.startswith(CHROOT)

    @property
    def is_local(self) -> bool:
        """Whether it is the machine that this runs on."""
        return self.target == LOCAL

    @property
    def needs_sudo(self) -> bool:
        """Whether whom we log in as has to become root."""
        if self.is_local:
            return os.geteuid() != 0
        return not self.is_chroot and self.settings.deploy.user != "root"


def host_names(config_dir: Path) -> tuple[str, ...]:
    """Return the names of all machines that have a file."""
    return tuple(sorted(path.stem for path in (config_dir / "hosts").glob("*.toml")))


def all_machines(config_dir: Path) -> tuple[Machine, ...]:
    """Return every machine that has a file.

    Raises:
        InvalidSettingsError: the settings of one or more are wrong.
    """
    if not (names := host_names(config_dir)):
        return ()
    return machines(config_dir, names, environ={}, hostname="")


def machines(
    config_dir: Path, targets: Sequence[str], *, environ: Mapping[str, str], hostname: str, called: str | None = None
) -> tuple[Machine, ...]:
    """Return the machines of these targets, or all that have a file when there are none.

    Args:
        config_dir: folder with groups/ and hosts/.
        targets: names, `@local`, `@chroot/FOLDER`.
        environ: environment variables, for `@local`.
        hostname: of the machine that runs this, for `@local`.
        called: whose settings `@local` or `@chroot/FOLDER` has; for `@local`, the host name's otherwise.

    Raises:
        TargetError: there is no such machine.
        InvalidSettingsError: the settings of one or more are wrong.
    """
    wanted = tuple(dict.fromkeys(targets)) or host_names(config_dir)
    if not wanted:
        raise TargetError(f"there is no machine: {config_dir}/hosts has no file NAME.toml")
    found = []
    problems: list[Problem] = []
    for target in wanted:
        try:
            found.append(_machine(config_dir, target, environ=environ, hostname=hostname, called=called))
        except InvalidSettingsError as error:
            problems += error.problems
    if problems:
        raise InvalidSettingsError(tuple(dict.fromkeys(problems)))
    return tuple(found)


def _machine(
    config_dir: Path, target: str, *, environ: Mapping[str, str], hostname: str, called: str | None
) -> Machine:
    if called is not None and target.startswith("@"):
        _check_known(config_dir, called)
    if target == LOCAL:
        name = called or hostname
        return Machine(target, name, load(config_dir, environ, name).settings)
    if target.startswith(CHROOT):
        folder = Path("/" + target.removeprefix(CHROOT).lstrip("/"))
        if not (folder / "usr").is_dir():
            raise TargetError(f"{target}: {folder} is no root file system (it has no usr)")
        if folder.samefile("/"):
            raise TargetError(f"{target} is this machine itself: use {LOCAL}")
        name = called or ""
    else:
        _check_known(config_dir, target)
        name = target
    settings = load(config_dir, {}, name, first_boot=(config_dir / FIRST_BOOT_FILE, b"")).settings
    return Machine(target, name, settings)


def _check_known(config_dir: Path, name: str) -> None:
    if name not in (known := host_names(config_dir)):
        raise TargetError(f"there is no {config_dir}/hosts/{name}.toml (there are: {', '.join(known) or 'none'})")
