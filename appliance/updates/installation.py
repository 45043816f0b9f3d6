"""One update, from the download to the restart; each step waits until nobody is in its way."""

import asyncio
import logging
from collections.abc import Callable

from appliance.updates import records
from appliance.updates.errors import InstallError, UpdateError
from appliance.updates.host import BACK_UNIT, INSTALL_UNIT, Host
from appliance.updates.image import ImagePaths
from appliance.updates.installing import BASELINE, OUTCOME
from appliance.updates.memory import Attempt, Notebook
from appliance.updates.published import Release
from appliance.updates.report import UpdateReport
from appliance.updates.slots import Slots
from appliance.updates.source import Source
from appliance.updates.staging import MOST_BYTES, Index, Staging

_log = logging.getLogger(__name__)

_DOWNLOADED = 0.6
_INSTALLED = 0.9
"""Shares of the whole that are done by then."""
_RESTART_SECONDS = 900.0
"""How long the machine may take to go down: services have time to end."""


class Installation:
    """An update that was asked for."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        host: Host,
        report: UpdateReport,
        staging: Staging,
        notebook: Notebook,
        paths: ImagePaths,
        slots: Callable[[], Slots],
        quiet: float,
        look: float,
    ) -> None:
        """Take what it works with.

        Args:
            attempt: what is to be done.
            host: the machine.
            report: says how it goes.
            staging: the folder of downloads.
            notebook: outlives the restart.
            paths: where things are.
            slots: reads the disk's slots.
            quiet: for how many seconds nobody must have used the machine.
            look: seconds between two looks.
        """
        self._attempt = attempt
        self._host = host
        self._report = report
        self._staging = staging
        self._notebook = notebook
        self._paths = paths
        self._slots = slots
        self._quiet = quiet
        self._look = look

    async def bring(self, source: Source, index: Index, release: Release) -> None:
        """Download the version, and say how it goes.

        Raises:
            UpdateError: it can't be had; what came is kept.
        """
        version = release.version
        await self._report.say("downloading", version=version, progress=0.0)
        limits = dict(MOST_BYTES)
        try:
            slots = await asyncio.to_thread(self._slots)
            limits |= {"root": slots.root_size, "verity": slots.verity_size}
        except UpdateError as error:
            _log.debug("the slots are not known: %s", error)
        now = (0.0, "")

        def note(share: float, name: str) -> None:
            nonlocal now
            now = (share, name)

        bringing = asyncio.create_task(self._staging.bring(source, index, release, limits, note), name="download")
        try:
            while not bringing.done():
                await asyncio.wait([bringing], timeout=min(self._look, 1.0))
                await self._report.step(_DOWNLOADED * now[0], now[1])
        finally:
            bringing.cancel()
        await bringing

    async def install(self) -> None:
        """Have root verify and install it, or go back; returns when it starts next.

        Raises:
            InstallError: it does not; nothing has changed.
        """
        attempt = self._attempt
        await self._report.say("installing", version=attempt.version, progress=_DOWNLOADED)
        await self._until_quiet("it is installed")
        try:
            records.write(self._paths.staged / BASELINE, await self._host.baseline())
            self._notebook.begin(attempt)
            former = self._outcome_time()
        except OSError as error:
            raise InstallError(f"{self._paths.staged} can't be written: {error.strerror}") from error
        await self._host.start(self._unit)
        await self._follow(former)

    async def resume(self) -> None:
        """Follow what an earlier start of this daemon began.

        Raises:
            InstallError: it was not done; nothing has changed.
        """
        await self._report.say("installing", version=self._attempt.version, progress=_DOWNLOADED)
        await self._follow(None)

    @property
    def _unit(self) -> str:
        return BACK_UNIT if self._attempt.back else INSTALL_UNIT.format(_escaped(self._attempt.version))

    async def _follow(self, former: int | None) -> None:
        """Wait for the unit's end, and read what it left; `former` is the time of what was left before."""
        unit = self._unit
        while (now := await self._host.unit(unit)).active in {"activating", "reloading", "active"}:
            await self._show(now.status)
            await asyncio.sleep(self._look)
        outcome = records.read(self._paths.own / OUTCOME, records.Outcome)
        about = self._attempt.former if self._attempt.back else self._attempt.version
        if outcome is None or outcome.version != about or self._outcome_time() == former:
            raise InstallError(
                f"{unit} ended with {now.result!r} and has left no word; `journalctl -u {unit}` has more"
            )
        if not outcome.ok:
            raise InstallError(outcome.error)
        if now.active == "failed":
            raise InstallError(f"{unit} failed: {now.result}")

    async def restart(self) -> None:
        """Have the machine restarted, and wait until it is; returns only if it does not restart.

        Raises:
            InstallError: it is not allowed.
        """
        version = self._attempt.version
        await self._report.say("rebooting", version=version, progress=_INSTALLED)
        await self._until_quiet("the machine restarts")
        _log.info("restarting into version %s", version)
        await self._host.restart()
        await asyncio.sleep(_RESTART_SECONDS)

    async def _until_quiet(self, what: str) -> None:
        while (idle := await self._host.idle()) < self._quiet or idle <= 0:
            waiting = f"{what} once nobody has used the experts for {self._quiet:.0f} s"
            await self._report.step(self._progress, waiting)
            await asyncio.sleep(self._look)

    @property
    def _progress(self) -> float:
        return _INSTALLED if self._report.state == "rebooting" else _DOWNLOADED

    async def _show(self, status: str) -> None:
        """Pass on what the root part says: a share and a few words."""
        share, _, words = status.partition(" ")
        try:
            done = min(max(float(share), 0.0), 1.0)
        except ValueError:
            return
        await self._report.step(_DOWNLOADED + (_INSTALLED - _DOWNLOADED) * done, words)

    def _outcome_time(self) -> int:
        try:
            return (self._paths.own / OUTCOME).stat().st_mtime_ns
        except OSError:
            return 0


def _escaped(version: str) -> str:
    """Escape what a unit's instance can't hold, as systemd-escape(1) does."""
    return version.replace("~", "\\x7e")
