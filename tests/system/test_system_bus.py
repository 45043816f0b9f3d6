"""The connection to the system bus: what it does when the bus or a service misbehaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.node.dbus import connection as system_bus
from appliance.node.dbus.connection import Remote, SystemBus, expect
from appliance.node.dbus.errors import NoSystemBusError, NotAllowedError, ServiceCallError
from appliance.node.dbus.logind import Logind
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.logind import PATH, FakeLogind

pytestmark = pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus")

MANAGER = Remote("org.freedesktop.login1", PATH, "org.freedesktop.login1.Manager")


@pytest.fixture
async def daemon() -> AsyncIterator[BusDaemon]:
    async with BusDaemon() as running:
        yield running


async def until_connected(bus: SystemBus) -> None:
    async with asyncio.timeout(10):
        while not bus.connected:
            await asyncio.sleep(0.01)


async def test_a_machine_without_dbus_is_a_plain_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SystemBus(f"unix:path={tmp_path}/nothing") as bus:
        with pytest.raises(NoSystemBusError, match="this system has no D-Bus"):
            await bus.call(MANAGER, "ListSessions")
        await asyncio.sleep(1)  # time for further attempts
        assert not bus.connected
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


@pytest.mark.parametrize("address", ["nonsense", "unix:nothing=1", "carrier-pigeon:path=/coop"])
async def test_an_address_that_makes_no_sense_is_said(address: str) -> None:
    async with SystemBus(address) as bus:
        with pytest.raises(NoSystemBusError, match="the connection to D-Bus failed"):
            await bus.call(MANAGER, "ListSessions")


@pytest.mark.parametrize("listens", [True, False])
async def test_a_bus_that_hangs_up_while_it_is_opened_does_not_hold_the_process(
    tmp_path: Path, *, listens: bool
) -> None:
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if listens:
            await reader.readline()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_unix_server(hang_up, str(tmp_path / "bus"))
    async with server, SystemBus(f"unix:path={tmp_path}/bus") as bus:
        with pytest.raises(NoSystemBusError, match="lost"):
            await bus.call(MANAGER, "ListSessions")
        async with asyncio.timeout(10):
            while connections < 2:
                await asyncio.sleep(0.05)


async def test_errors_of_services_are_told_apart(daemon: BusDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SystemBus(daemon.address) as bus:
        logind = Logind(bus)
        with pytest.raises(ServiceCallError, match=r"org\.freedesktop\.login1"):
            await logind.sessions()
        async with FakeLogind(daemon.address) as service:
            service.refuses = True
            with pytest.raises(NotAllowedError, match="Interactive authentication required"):
                await logind.put_down("suspend")
            with pytest.raises(ServiceCallError, match="answered with type 's' instead of 'b'"):
                expect(await bus.call(MANAGER, "CanSuspend"), "b")
            service.unanswered.add("CanSuspend")
            monkeypatch.setattr(system_bus, "CALL_SECONDS", 0.2)
            with pytest.raises(ServiceCallError, match="did not answer CanSuspend"):
                await logind.can("suspend")


async def test_a_bus_that_is_lost_during_a_call_ends_the_call_and_comes_back(daemon: BusDaemon) -> None:
    async with SystemBus(daemon.address) as bus, FakeLogind(daemon.address) as service:
        logind = Logind(bus)
        service.unanswered.add("CanSuspend")
        asking = asyncio.create_task(logind.can("suspend"))
        async with asyncio.timeout(10):
            while "CanSuspend" not in service.calls:
                await asyncio.sleep(0.01)
        await daemon.kill()
        with pytest.raises(NoSystemBusError):
            await asking
        with pytest.raises(NoSystemBusError):
            await logind.can("suspend")
        await daemon.start()
        service.disconnect()
        await service.connect()
        await until_connected(bus)
        service.unanswered.clear()
        assert await logind.can("suspend") == "yes"


async def test_locks_last_until_they_are_released(daemon: BusDaemon) -> None:
    async with SystemBus(daemon.address) as bus, FakeLogind(daemon.address) as service:
        logind = Logind(bus)
        lock = await logind.inhibit("sleep", why="Testing", mode="delay")
        (held,) = service.locks
        assert (held.what, held.who, held.why, held.mode) == (
            frozenset({"sleep"}),
            "Rouse",
            "Testing",
            "delay",
        )
        (listed,) = await logind.inhibitors()
        assert (listed.what, listed.mode, listed.pid) == (held.what, "delay", held.pid)
        lock.release()
        lock.release()
        await asyncio.wait_for(held.released.wait(), 5)
        assert service.locks == []
        assert await logind.longest_delay() == 5.0
        assert not await logind.about_to("shutdown")
