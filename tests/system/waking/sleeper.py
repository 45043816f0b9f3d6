"""A machine that sleeps: `python -m tests.system.waking.sleeper CONFIG`.

The node daemon is the real one, on a message bus of its own; logind, expert and network card are played. Asleep,
the machine does nothing until a magic packet for it comes in: as a frame on an interface, or as a datagram on a port of
loopback.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from appliance.bus.connection import Connection
from appliance.node import daemon
from appliance.node.dbus.connection import ADDRESS_VARIABLE
from appliance.settings.model import Settings
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.logind import FakeLogind
from tests.system.machine.node import QUICK, IdlePolicy

_ALL_FRAMES = 0x0003


class ChattingExpert(PlayedExpert):
    """Answers chats, and notes those that came while the machine slept."""

    def __init__(self, host: str, port: int, name: str) -> None:
        super().__init__()
        self.is_asleep = False
        self.asked_while_asleep = 0
        self._host = host
        self._port = port
        self._name = name

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked_while_asleep += self.is_asleep
        body = await request.json()
        if body.get("stream"):
            reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await reply.prepare(request)
            chunk = {"choices": [{"index": 0, "delta": {"content": self._name}, "finish_reason": "stop"}]}
            await reply.write(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode())
            return reply
        message = {"role": "assistant", "content": self._name}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def serve(self, stack: contextlib.AsyncExitStack) -> None:
        application = web.Application()
        application.router.add_get("/health", self._health)
        application.router.add_post("/prefixes/save", self._save)
        application.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(application)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._host, self._port).start()
        self.url = f"http://{self._host}:{runner.addresses[0][1]}/v1"


class NetworkCard:
    """Looks for the pattern of a magic packet, and for the SecureOn password if it has one."""

    def __init__(self, where: dict[str, Any], mac: str, password: str) -> None:
        raw = bytes.fromhex(mac.replace(":", ""))
        self._pattern = b"\xff" * 6 + raw * 16 + bytes.fromhex(password)
        if "interface" in where:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES))
            self._socket.bind((where["interface"], 0))
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", where["port"]))
        self._socket.setblocking(False)

    async def watch(self, awaken: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._pattern in await loop.sock_recv(self._socket, 65_536):
                await awaken()


class Machine:
    """What happens to the machine, told to the test in a file."""

    def __init__(self, logind: FakeLogind, expert: ChattingExpert, config: dict[str, Any]) -> None:
        self._logind = logind
        self._expert = expert
        self._file = Path(config["journal"])
        self._seconds = config.get("resume_seconds", 0.2)
        self._deaf = config.get("deaf", False)
        self._resuming = False
        self._packets = 0
        self.tell()

    def tell(self, **more: Any) -> None:
        told = {
            "asleep": self._expert.is_asleep,
            "packets": self._packets,
            "asked_while_asleep": self._expert.asked_while_asleep,
            "sleeps": len(self._logind.put_down),
            "pid": os.getpid(),
            "time": time.time(),
            **more,
        }
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(told))
        draft.replace(self._file)

    async def sleep_when_told(self) -> None:
        while True:
            await self._logind.down.wait()
            self._expert.is_asleep = True
            self.tell()
            while self._logind.down.is_set():
                await asyncio.sleep(0.02)

    async def packet(self) -> None:
        self._packets += self._expert.is_asleep
        self.tell()
        if self._expert.is_asleep and not self._resuming and not self._deaf:
            self._resuming = True
            await asyncio.sleep(self._seconds)
            self._expert.is_asleep = self._resuming = False
            await self._logind.wake()
            self.tell()


async def main(config: dict[str, Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    expert = ChattingExpert(config["host"], config.get("expert_port", 0), config["expert"])
    settings = Settings.model_validate(
        {
            "node": {"name": config["node"], "roles": ["expert"], "telemetry_interval": 2, "status_port": 0},
            "paths": {"state": config["state"], "models": config["state"]},
            "experts": {config["expert"]: {"model": "m.gguf"}},
        }
    )
    connection = Connection(config["broker"][0], config["broker"][1], "rouse", config["password"])
    card = NetworkCard(config["card"], config["mac"], config.get("secureon", ""))
    async with contextlib.AsyncExitStack() as stack:
        dbus = await stack.enter_async_context(BusDaemon())
        logind = await stack.enter_async_context(FakeLogind(dbus.address))
        await expert.serve(stack)
        machine = Machine(logind, expert, config)
        tasks = [asyncio.create_task(card.watch(machine.packet)), asyncio.create_task(machine.sleep_when_told())]
        await daemon.run(
            settings,
            connection=connection,
            environment={**os.environ, ADDRESS_VARIABLE: dbus.address},
            stop=stop,
            power=daemon.PowerPlan(decide=IdlePolicy(idle_after=100_000), options=QUICK),
            expert_command=expert.command,
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
