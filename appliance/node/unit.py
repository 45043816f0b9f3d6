"""One expert as a systemd unit: started, watched, announced, stopped over D-Bus.

systemd restarts it when it dies or stops feeding its watchdog; the daemon starts it again when systemd has given up.
The expert says where it answers in its status (STATUS= of sd_notify), which only the unit's own processes can set and
which systemd forgets with them: the same line of JSON that a child writes on its standard output.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import aiohttp

from appliance import durable_files
from appliance.errors import StartError
from appliance.node.dbus.errors import NoSuchUnitError, NoSystemBusError, NotAllowedError, SystemBusError
from appliance.node.dbus.systemd import Systemd, UnitState, unit_name
from appliance.node.supervised import LINE, Ready, Report, SupervisedExpert, Waiting
from appliance.settings.excerpt import for_experts
from appliance.settings.load import FIRST_BOOT_FILE
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Between two looks at a unit that is not ready."""
PROBE_SECONDS = 5.0
MAX_FAILED_PROBES = 6
"""Probes in a row without an answer before a hung expert is restarted."""
FIRST_BACKOFF_SECONDS = 5.0
LAST_BACKOFF_SECONDS = 300.0
SETTINGS_FOLDER = Path("/run/rouse/experts")
"""Where `rouse-expert@.service` has its settings from (ROUSE_CONFIG_DIR). It passes its group on to what is in it."""


def tell_units(settings: Settings, folder: Path) -> None:
    """Write what the experts have to know, for them alone to read.

    Raises:
        StartError: the folder can't be written.
    """
    try:
        durable_files.write(folder / FIRST_BOOT_FILE, for_experts(settings).encode(), mode=0o640)
    except OSError as error:
        raise StartError(f"{folder}: the experts' settings can't be written: {error.strerror}") from error


class ExpertUnit(SupervisedExpert):
    """Keeps one expert running as `rouse-expert@NAME.service` until it is cancelled."""

    def __init__(
        self,
        *,
        name: str,
        node: str,
        systemd: Systemd,
        http: aiohttp.ClientSession,
        report: Report,
        advertise: Callable[[str], str] = lambda url: url,
        key: str = "",
        unit: str | None = None,
    ) -> None:
        """Take systemd, what every supervised expert takes, and what systemd knows it by, if not by its name."""
        super().__init__(name=name, node=node, http=http, report=report, advertise=advertise, key=key)
        self._systemd = systemd
        self._unit = unit or name
        self._said: tuple[str, str | None] | None = None
        self._earlier_restarts = 0

    async def run(self) -> None:
        """Start the unit, and again whenever systemd has given it up, until cancelled; then stop it."""
        backoff = FIRST_BACKOFF_SECONDS
        try:
            while True:
                try:
                    await self._systemd.start(self._unit)
                    backoff = FIRST_BACKOFF_SECONDS if await self._watch() else backoff
                except NoSystemBusError as error:
                    await self._fail_unless_known(str(error))
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                except NoSuchUnitError:
                    await self._fail(f"systemd has no unit {unit_name(self._unit)}: is it installed?")
                except NotAllowedError as error:
                    await self._fail(f"the service's user may not start {unit_name(self._unit)}: {error}")
                except SystemBusError as error:
                    await self._fail(str(error))
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
        finally:
            await self._stop()

    async def _watch(self) -> bool:
        """Follow the unit until systemd gives it up; whether it has been ready meanwhile."""
        been_ready, failed = False, 0
        while True:
            unit = await self._systemd.state(self._unit)
            self._restarts = self._earlier_restarts + unit.restarts
            match unit.active:
                case "active" if (ready := _ready(unit)) is not None:
                    been_ready = True
                    await self._announce(ready)
                    failed = 0 if await self._probe(ready.url) else failed + 1
                    if failed >= MAX_FAILED_PROBES:
                        failed = 0
                        await self._fail("it hung: it did not answer its health check")
                        await self._systemd.restart(self._unit)
                    await asyncio.sleep(PROBE_SECONDS)
                    continue
                case "failed" | "inactive":
                    self._earlier_restarts += unit.restarts + 1
                    self._restarts = self._earlier_restarts
                    await self._fail(f"systemd gave up on {unit_name(self._unit)}: {unit.result}")
                    return been_ready
                case "activating" if unit.sub == "auto-restart":
                    await self._fail(f"{unit_name(self._unit)} ended: {unit.result}")
                case _:
                    await self._announce_start(_obstacle(unit))
            await asyncio.sleep(POLL_SECONDS)

    async def _announce(self, ready: Ready) -> None:
        if self._said != ("ready", ready.url):
            self._said = ("ready", ready.url)
            _log.info("expert %s is ready at %s", self._name, ready.url)
            await self._say("ready", ready=ready)

    async def _announce_start(self, obstacle: str | None) -> None:
        if self._said != ("starting", obstacle):
            self._said = ("starting", obstacle)
            self._forget_process()
            await self._say("starting", error=obstacle)

    async def _fail(self, reason: str) -> None:
        if self._said != ("failed", reason):
            self._said = ("failed", reason)
            self._forget_process()
            _log.error("expert %s: %s", self._name, reason)
            await self._say("failed", error=reason)

    async def _fail_unless_known(self, reason: str) -> None:
        """Without D-Bus, an expert that still answers is as good as before."""
        if self._url is None or not await self._probe(self._url):
            await self._fail(reason)

    async def _stop(self) -> None:
        try:
            result = await self._systemd.stop(self._unit)
            if result != "done":
                _log.warning("stopping %s ended with %s", unit_name(self._unit), result)
        except SystemBusError as error:
            _log.warning("%s is left as it is: %s", unit_name(self._unit), error)
        await self._say("stopped")


def _ready(unit: UnitState) -> Ready | None:
    """Return where an expert answers; None while it says something else."""
    try:
        said = LINE.validate_json(unit.status)
    except ValueError:
        return None
    return said if isinstance(said, Ready) else None


def _obstacle(unit: UnitState) -> str | None:
    try:
        said = LINE.validate_json(unit.status)
    except ValueError:
        return None
    return said.waiting if isinstance(said, Waiting) else None
