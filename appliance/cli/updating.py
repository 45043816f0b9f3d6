"""Puts the node daemon's parts and the image's updates together."""

from collections.abc import Awaitable

import aiohttp

from appliance.node.dbus.errors import NoSuchUnitError, NotAllowedError, SystemBusError
from appliance.node.updating import NodeParts
from appliance.settings.model import Settings
from appliance.updates.errors import InstallError
from appliance.updates.host import UnitReport
from appliance.updates.image import ImagePaths, architecture, running_version
from appliance.updates.records import Baseline
from appliance.updates.service import UpdateService

_ANSWER_SECONDS = 5.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "localhost": "127.0.0.1", "::1": "[::1]"}  # noqa: S104 - read, not bound


class NodeHost:
    """The machine, by the daemon's parts."""

    def __init__(self, parts: NodeParts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings

    async def idle(self) -> float:
        """Return for how many seconds nobody has used its experts."""
        busy = await self._parts.activity.look()
        return 0.0 if busy.generating else busy.idle

    async def start(self, unit: str) -> None:
        """Have systemd start a unit."""
        await _translated(self._parts.systemd.start_unit(unit))

    async def unit(self, unit: str) -> UnitReport:
        """Return how a unit is."""
        if not unit.endswith(".service"):
            return UnitReport(await _translated(self._parts.systemd.active_state(unit)), "", "")
        waiting = await _translated(self._parts.systemd.has_job(unit))
        state = await _translated(self._parts.systemd.service_state(unit))
        return UnitReport("activating" if waiting else state.active, state.result, state.status)

    async def boot(self) -> str:
        """Return what tells this boot from others."""
        return str(await _translated(self._parts.systemd.started_at()))

    async def restart(self) -> None:
        """Have the machine restarted."""
        await _translated(self._parts.logind.restart())

    async def baseline(self) -> Baseline:
        """Return what is up."""
        status, front = health_urls(self._settings)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS)) as http:
            return Baseline(
                status=status if await _answers(http, status) else None,
                gateway=front if await _answers(http, front) else None,
                experts=[expert.name for expert in self._parts.experts if expert.state == "ready"],
                broker=self._parts.bus.connected,
            )


def make_updates(parts: NodeParts, settings: Settings, paths: ImagePaths | None = None) -> UpdateService | None:
    """Make what updates the image, or nothing on a machine that runs none."""
    where = paths or ImagePaths(staged=settings.paths.state / "updates")
    installed = running_version(where)
    if installed is None:
        return None
    return UpdateService(
        node=parts.node,
        installed=installed,
        architecture=architecture(),
        settings=settings.updates,
        bus=parts.bus,
        host=NodeHost(parts, settings),
        paths=where,
    )


def health_urls(settings: Settings) -> tuple[str | None, str | None]:
    """Return where the node daemon and the gateway tell how they are, as far as they run here and do so on loopback."""
    node, gateway = settings.node, settings.gateway
    front = _health(gateway.host, gateway.port) if "hub" in node.roles else None
    return _health(node.status_host, node.status_port), front


def _health(host: str, port: int) -> str | None:
    """Return where a service of this machine tells how it is, if it does so on loopback."""
    found = _ANYWHERE.get(host, host)
    return f"http://{found}:{port}/health" if port and found in {"127.0.0.1", "[::1]"} else None


async def _answers(http: aiohttp.ClientSession, url: str | None) -> bool:
    if url is None:
        return False
    try:
        async with http.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _translated[R](asking: Awaitable[R]) -> R:
    try:
        return await asking
    except NotAllowedError as error:
        raise InstallError(f"polkit does not allow it to this service's user: {error}") from error
    except NoSuchUnitError as error:
        raise InstallError(f"this image has no unit for it: {error}") from error
    except SystemBusError as error:
        raise InstallError(str(error)) from error
