"""A mosquitto beside the hub, as docs/certificates.md says, which is reloaded when the hub has written."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from scripts.house.mosquitto import program
from scripts.house.processes import child
from tests.system.pairing.sides import BROKER_PORT, NODES_PORT, ROOT, Side

DOCUMENTED = "/var/lib/rouse-broker"


def broker_settings(folder: Path) -> str:
    """Return what the hub is told of it."""
    return f"""
url = "mqtt://127.0.0.1:{BROKER_PORT}"
username = "rouse"
password_file = "{folder / "state/secrets/bus/broker-rouse.password"}"
mosquitto_folder = "{folder / "mosquitto"}"
nodes_port = {NODES_PORT}
"""


def configuration(folder: Path, *, broker_port: int = BROKER_PORT, nodes_port: int = NODES_PORT) -> str:
    """Return mosquitto's configuration as it is documented, for another folder and other ports."""
    text = (ROOT / "docs" / "certificates.md").read_text()
    block = text.split("```conf\n")[1].split("```")[0]
    for documented, ours in ((DOCUMENTED, str(folder)), ("1883", str(broker_port)), ("8883", str(nodes_port))):
        assert documented in block
        block = block.replace(documented, ours)
    return f"user root\npersistence false\nlog_type all\n{block}"


@asynccontextmanager
async def mosquitto_beside(hub: Side) -> AsyncIterator[None]:
    """Run it until the context ends."""
    assert (await hub.rouse("certificate", "setup"))[0] == 0
    folder = hub.folder / "mosquitto"
    file = hub.folder / "mosquitto.conf"
    file.write_text(configuration(folder))
    command = hub.within(program() or "mosquitto", "-c", file)
    async with child(command, log=hub.folder / "mosquitto.log", grace=5) as process:
        watching = asyncio.create_task(reload_when_changed(process.pid, folder))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


async def reload_when_changed(pid: int, folder: Path) -> None:
    """Do what the path unit does."""
    while True:
        await asyncio.sleep(0.05)
        if (folder / "changed").exists():
            (folder / "changed").unlink()
            os.kill(pid, signal.SIGHUP)
