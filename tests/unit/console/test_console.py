"""The status screen in a pseudo terminal, on a line without a cursor, and with everything else down."""

import asyncio
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pyte
import pytest
from aiohttp import web

from appliance.console.screen import screen
from appliance.console.snapshot import Door, Machine, Snapshot
from appliance.console.sources import Sources, clean
from appliance.settings.model import NodeSettings, Settings
from appliance.settings.pairing import PairingSettings
from scripts.house.processes import free_port

ROOT = Path(__file__).parents[3]
SECONDS = 60.0


class House:
    """A node's HTTP server and its pairing socket, as a test wants them to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "pairing.sock"
        self.port = free_port()
        self.health: Any = {"status": "ok", "node": "attic", "experts": {"small": "starting"}}
        self.door: Any = {
            "state": "open",
            "key": "3f9c0d2b7a61e845" * 4,
            "code": "1234 5678",
            "expires_in": 500,
            "locked_for": None,
        }
        self.renewed = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def health(_: web.Request) -> web.Response:
            return web.json_response(self.health)

        async def code(request: web.Request) -> web.Response:
            if request.method == "POST":
                self.renewed += 1
                self.door = {**self.door, "code": "8765 4321"}
            return web.json_response(self.door)

        async with AsyncExitStack() as stack:
            node, door = web.Application(), web.Application()
            node.router.add_get("/health", health)
            door.router.add_route("*", "/code", code)
            for app in (node, door):
                runner = web.AppRunner(app)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                site = web.TCPSite(runner, "127.0.0.1", self.port) if app is node else None
                await (site or web.UnixSite(runner, str(self.socket))).start()
            yield

    def configure(self) -> None:
        (self.folder / "rouse.toml").write_text(
            f"""
[node]
name = "attic"
roles = ["expert"]
status_port = {self.port}
[pairing]
socket = {json.dumps(str(self.socket))}
"""
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.configure()
    return house


class Screen:
    """`rouse console` in a pseudo terminal of 80 columns and 24 lines, as pyte sees it."""

    def __init__(self, descriptor: int, process: asyncio.subprocess.Process) -> None:
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._descriptor = descriptor
        self.process = process

    def read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            data = b""
        self.raw += data
        self._stream.feed(data)

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    async def until(self, good: Callable[[str], bool]) -> str:
        try:
            async with asyncio.timeout(SECONDS):
                while not good(self.text):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(self.text) from None
        return self.text


@asynccontextmanager
async def console(house: House, *arguments: str, term: str = "linux") -> AsyncIterator[Screen]:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance", "--config-dir", str(house.folder), "console", *arguments,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**kept, "TERM": term, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    os.close(theirs)
    shown = Screen(ours, process)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, shown.read)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 0
        loop.remove_reader(ours)
        os.close(ours)


async def test_the_screen_follows_the_machine(house: House) -> None:
    async with console(house) as shown:
        text = await shown.until(lambda text: "not running" in text)
        assert "ROUSE   attic (expert)" in text
        assert "load" in text
        async with house.running():
            text = await shown.until(lambda text: "1234 5678" in text)
            assert "rouse pair attic" in text
            assert "3f9c0d2b7a61e845\n" in text
            assert "r: another code" in text
            assert re.search(r"small starting", text)
            shown.type("xyz")
            shown.type("r")
            await shown.until(lambda text: "8765 4321" in text)
            assert house.renewed == 1
            house.door = {"state": "locked", "code": None, "expires_in": None, "locked_for": 540}
            house.health = {
                "status": "degraded",
                "node": "attic",
                "experts": {"small": "failed"},
                "broker": {"address": "10.0.0.1:1883", "connected": False},
                "power": {"state": "going_to_sleep", "reason": "idle"},
                "update": {"state": "downloading", "available": "2.0"},
            }
            text = await shown.until(lambda text: "degraded" in text)
            for part in (
                "locked for 10 minutes: too many wrong codes",
                "10.0.0.1:1883: no connection",
                "going_to_sleep (idle)",
                "downloading (2.0)",
                "failed",
            ):
                assert part in text
        text = await shown.until(lambda text: "not running" in text)
        assert "8765 4321" not in text


async def test_a_line_without_a_cursor_gets_changes_only(house: House) -> None:
    async with house.running(), console(house, term="dumb") as shown:
        await shown.until(lambda text: "code: 1234 5678" in text)
        house.health = {**house.health, "experts": {"small": "ready"}}
        await shown.until(lambda text: "experts: small ready" in text)
        house.door = {**house.door, "expires_in": 100}
        house.health = {**house.health, "status": "degraded"}
        await shown.until(lambda text: "node: degraded" in text)
    assert b"\x1b" not in shown.raw
    assert shown.raw.count(b"name: attic") == 1
    assert shown.raw.count(b"code: 1234 5678") == 1


async def test_settings_that_are_wrong_are_shown(house: House) -> None:
    (house.folder / "rouse.toml").write_text("[node]\nnaem = 'x'\n")
    async with console(house) as shown:
        text = await shown.until(lambda text: "unknown key" in text)
    assert "rouse.toml:2: node.naem: unknown key; did you mean" in " ".join(text.split())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"null",
        b'{"experts": 7, "broker": [], "node": {}, "status": null}',
        b'{"experts": {"a": ["b"]}, "power": 1}',
        b"[" * 10_000,
        b"x" * 300_000,
        b'{"node": "\\u001b[2J\\u0007", "experts": {"\\u202e": "\\n\\n"}}',
    ],
    ids=["nothing", "a list", "null", "other types", "other values", "deep", "long", "escapes"],
)
async def test_whatever_the_node_answers(house: House, answer: bytes) -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(body=answer)

    app = web.Application()
    app.router.add_get("/health", reply)
    app.router.add_get("/code", reply)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", house.port).start()
        await web.UnixSite(runner, str(house.socket)).start()
        settings = Settings(
            node=NodeSettings(name="attic", roles=("expert",), status_port=house.port),
            pairing=PairingSettings(socket=house.socket),
        )
        file = house.folder / "first-boot.json"
        file.write_bytes(answer)
        snapshot = await Sources(settings=settings, name="attic", first_boot=file).read()
    finally:
        await runner.cleanup()
    lines = screen(snapshot, width=80, height=24, keys=True)
    assert 0 < len(lines) <= 24
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
    assert all(character.isprintable() or character == "\n" for character in text)


def test_it_fits_a_small_screen() -> None:
    snapshot = Snapshot(
        name="n" * 63,
        version="1.0",
        roles=("hub", "expert", "voice", "vision"),
        addresses=tuple(f"10.0.0.{number} (enp{number}s0)" for number in range(9)),
        door=Door("open", "1234 5678", expires_in=300),
        experts=tuple((f"expert{number}", "ready") for number in range(40)),
        errors=tuple(f"error {number} " + "x" * 150 for number in range(10)),
        machine=Machine(1.0, 4, 0.5, 61.0),
    )
    lines = screen(snapshot, width=80, height=24, keys=True)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert len(plain) <= 24
    assert max(map(len, plain)) <= 80
    text = "\n".join(plain)
    assert "1234 5678" in text
    assert "and 32 more" in text
    assert "61 °C" in text


def test_clean() -> None:
    assert clean("a\x1b[2J\u202eb\n") == "a?[2J?b?"
    assert len(clean("x" * 1000)) == 200
