"""Converges backups."""

from pathlib import Path

from pyinfra.api import deploy

from appliance.settings import Settings
from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.appliance.layout import PROGRAM
from pyinfra_deploys.target import settings

TEMPLATES = Path(__file__).parent / "templates"
_UNITS = "/etc/systemd/system"
_HOMES = ("/home/", "/root/", "/run/user/")
_JOBS = (
    ("rouse-backup", "back the state up", "now"),
    ("rouse-backup-verify", "verify the backups", "verify"),
)


@deploy("Backup")
def backup() -> None:
    """Have the state backed up each night and the backups verified each week; without a repository, neither.

    Raises:
        DeployError: the image lacks restic.
    """
    own = settings()
    for name, description, command in _JOBS:
        if own.backup.repository is None:
            systemd.disabled(f"{name}.timer")
            generated.absent(f"{_UNITS}/{name}.timer")
            generated.absent(f"{_UNITS}/{name}.service")
            continue
        packages.installed(*_packages(own))
        changed = [
            generated.text(service(own, description=description, command=command), f"{_UNITS}/{name}.service"),
            generated.template(
                TEMPLATES / "rouse-backup.timer.j2",
                f"{_UNITS}/{name}.timer",
                description=description,
                when=_when(own, command),
                delay="10min" if command == "now" else "1h",
            ),
        ]
        systemd.enabled(f"{name}.timer")
        systemd.running(f"{name}.timer", changed=changed)


def service(own: Settings, *, description: str, command: str) -> str:
    """Return the unit that backs up or verifies. Raises DeployError."""
    wanted = own.backup
    repository = wanted.repository or ""
    files = (
        wanted.password_file,
        wanted.rest_password_file,
        wanted.ca_file,
        wanted.ssh_key_file,
        wanted.ssh_known_hosts_file,
        *wanted.include,
    )
    return generated.render(
        TEMPLATES / "rouse-backup.service.j2",
        description=description,
        command=command,
        program=PROGRAM,
        state=own.paths.state,
        metrics=own.monitoring.textfiles,
        folder=repository if repository.startswith("/") else "",
        # Homes are hidden, but for what the settings name there.
        readable=[str(path) for path in files if path is not None and str(path).startswith(_HOMES)],
    )


def _packages(own: Settings) -> tuple[str, ...]:
    over_ssh = (own.backup.repository or "").startswith("sftp://")
    return ("restic", "openssh-client") if over_ssh else ("restic",)


def _when(own: Settings, command: str) -> str:
    """Return the calendar's expression: each night, or each Sunday an hour and a half later at the earliest."""
    hour, minute = own.backup.at.split(":")
    if command == "now":
        return f"*-*-* {hour}:{minute}:00"
    return f"Sun *-*-* {(int(hour) + 2) % 24:02}:{minute}:00"
