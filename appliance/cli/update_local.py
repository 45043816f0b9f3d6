"""Installs a version on this machine as root, from a folder or an address, while no node daemon need run."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from appliance.cli.command_line import CommandError
from appliance.cli.updating import health_urls
from appliance.settings.model import Settings
from appliance.settings.updates import UpdateSettings
from appliance.updates import health, records
from appliance.updates.errors import InstallError, RefusedError, UpdateError
from appliance.updates.host import INSTALL_UNIT
from appliance.updates.image import ImagePaths, architecture, require_version
from appliance.updates.installing import BASELINE, OUTCOME
from appliance.updates.memory import Attempt, Notebook
from appliance.updates.published import SUMS
from appliance.updates.source import opened
from appliance.updates.staging import MOST_BYTES, Staging
from appliance.updates.versions import is_newer

_BOOT = ["busctl", "get-property", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
_BOOT += ["org.freedesktop.systemd1.Manager", "UserspaceTimestamp"]
_DOWNLOADED = 0.6

type OnProgress = Callable[[float, str], None]


def install(settings: Settings, source: str, version: str | None, *, downgrade: bool, on_progress: OnProgress) -> str:
    """Install a version into the other slot, and return which one.

    Raises:
        CommandError: it is not installed.
    """
    if os.geteuid() != 0:
        raise CommandError("--from changes this machine's disk, so it is for root: try it with sudo")
    paths = ImagePaths(staged=settings.paths.state / "updates")
    try:
        found = _source(settings.updates, source)
        version = asyncio.run(_staged(found, paths, version, downgrade=downgrade, on_progress=on_progress))
        on_progress(_DOWNLOADED, f"installing version {version}")
        _begin(settings, paths, version)
        _run_unit(version)
    except UpdateError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{paths.staged}: {error.strerror}") from error
    finally:
        _give_back(paths.staged, settings.paths.state)
    outcome = records.read(paths.own / OUTCOME, records.Outcome)
    if outcome is None or outcome.version != version or not outcome.ok:
        Notebook(paths.staged).forget()
        raise CommandError(
            outcome.error if outcome else "it was not installed; `journalctl -u 'rouse-update@*'` says why"
        )
    return version


def reboot() -> None:
    """Restart the machine.

    Raises:
        CommandError: systemd does not do it.
    """
    if subprocess.run(["systemctl", "reboot"], check=False).returncode != 0:  # noqa: S607 - the system's own
        raise CommandError("the machine does not restart: `systemctl reboot` failed")


def _source(settings: UpdateSettings, source: str) -> UpdateSettings:
    """Return settings with another source: a folder, the list of checksums in it, or an address."""
    if "://" not in source:
        folder = Path(source).resolve()
        source = str(folder.parent if folder.name == SUMS else folder)
    try:
        return UpdateSettings.model_validate({**settings.model_dump(), "source": source, "channel": None})
    except ValidationError as error:
        raise RefusedError(f"--from: {error.errors(include_url=False)[0]['msg']}") from error


async def _staged(
    settings: UpdateSettings, paths: ImagePaths, version: str | None, *, downgrade: bool, on_progress: OnProgress
) -> str:
    running = require_version(paths)
    staging = Staging(paths.staged, keys=paths.keys, architecture=architecture())
    async with opened(settings) as source:
        index = await staging.look(source)
        release = index.find(version)
        if release.version == running:
            raise RefusedError(f"version {running} is what runs")
        if not downgrade and not is_newer(release.version, running):
            raise RefusedError(f"version {release.version} is older than {running}: say --downgrade if you mean it")

        def show(share: float, name: str) -> None:
            on_progress(_DOWNLOADED * share, name)

        await staging.bring(source, index, release, MOST_BYTES, show)
    return release.version


def _begin(settings: Settings, paths: ImagePaths, version: str) -> None:
    """Note what is up, and that an update begins, for the boot after it."""
    status, gateway = health_urls(settings)
    said = health.get(status) if status is not None else None
    experts = said.get("experts") if said is not None else None
    broker = said.get("broker") if said is not None else None
    baseline = records.Baseline(
        status=status if said is not None else None,
        gateway=gateway if gateway is not None and health.get(gateway) is not None else None,
        experts=[name for name, state in experts.items() if state == "ready"] if isinstance(experts, dict) else [],
        broker=isinstance(broker, dict) and broker.get("connected") is True,
    )
    records.write(paths.staged / BASELINE, baseline)
    boot = subprocess.run(_BOOT, check=False, capture_output=True, text=True).stdout.removeprefix("t ").strip()  # noqa: S603 - a fixed one
    started = datetime.now(UTC).timestamp()
    Notebook(paths.staged).begin(Attempt(version=version, former=require_version(paths), boot=boot, started=started))


def _run_unit(version: str) -> None:
    unit = INSTALL_UNIT.format(version.replace("~", "\\x7e"))
    done = subprocess.run(["systemctl", "start", unit], check=False, capture_output=True, text=True)  # noqa: S603, S607 - the system's own
    if done.returncode not in {0, 1}:
        raise InstallError(f"systemd does not start {unit}: {done.stderr.strip()[:300]}")


def _give_back(folder: Path, state: Path) -> None:
    """Let the node daemon, whose folder this is, change what was made in it."""
    if not state.is_dir() or not folder.is_dir():
        return
    owner = folder.stat() if folder.stat().st_uid else state.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
