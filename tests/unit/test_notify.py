"""What is said to systemd, heard at a real socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.notify import ServiceManager, without_notification


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@rouse-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name.replace("@", "\0", 1))
        heard.settimeout(5)
        yield heard, name


def test_ready_status_and_stopping(listening: tuple[socket.socket, str]) -> None:
    heard, name = listening
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    assert manager.listens
    manager.ready("serves\nsmall")
    assert heard.recv(4096) == b"READY=1\nSTATUS=serves small"
    manager.ready()
    assert heard.recv(4096) == b"READY=1"
    manager.status("waits")
    assert heard.recv(4096) == b"STATUS=waits"
    manager.stopping()
    assert heard.recv(4096) == b"STOPPING=1"


async def test_the_watchdog_is_fed_as_long_as_the_check_returns(listening: tuple[socket.socket, str]) -> None:
    heard, name = listening
    heard.setblocking(False)
    loop = asyncio.get_running_loop()
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())})
    checks = 0

    async def check() -> None:
        nonlocal checks
        checks += 1
        if checks > 2:
            await asyncio.Event().wait()

    task = asyncio.create_task(manager.keep_alive(check))
    for _ in range(2):
        assert await asyncio.wait_for(loop.sock_recv(heard, 100), 5) == b"WATCHDOG=1"
    while checks < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    with pytest.raises(BlockingIOError):
        heard.recv(100)
    task.cancel()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "many"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
)
async def test_no_watchdog_of_ours_is_fed(listening: tuple[socket.socket, str], environment: dict[str, str]) -> None:
    heard, name = listening
    heard.setblocking(False)
    task = asyncio.create_task(ServiceManager({"NOTIFY_SOCKET": name, **environment}).keep_alive())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(BlockingIOError):
        heard.recv(100)


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234", "/nowhere/notify"])
def test_a_socket_that_is_not_there_harms_nothing(name: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": name} if name else {}).ready("serves")


def test_children_do_not_inherit_it() -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "/bin"}
    assert without_notification(environment) == {"PATH": "/bin"}
