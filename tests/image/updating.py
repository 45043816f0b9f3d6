"""A machine that updates itself: a broker and the node daemon as unprivileged services, and what they say.

Programs are few and small, because each start of a large one takes a minute where machines are emulated: the broker is
mosquitto, and who listens and asks is a script of a few lines.
"""

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Any

from image_build.errors import MachineError
from image_build.machine import Hardware, Machine, Network
from tests.image.conftest import BOOT_SECONDS
from tests.image.publisher import ADDRESS
from tests.image.releases import Releases

NODE = "attic"
SSH_PORT = 22
HEALTH_SECONDS = 180
UPDATE_SECONDS = 3600

_BROKER = """
[Unit]
Before=rouse-node.service
[Service]
DynamicUser=yes
ExecStart=/usr/sbin/mosquitto -p 1883
"""
_CONFIGURATION = f"""
[node]
name = "{NODE}"
roles = ["expert"]

[broker]
url = "mqtt://127.0.0.1:1883"

[updates]
source = "http://{ADDRESS}"
allow_http = true
quiet = 1
"""
_TALK = """
import sys, threading, paho.mqtt.client as mqtt
there, topic = threading.Event(), "rouse/v1/nodes/{node}/update"
def heard(client, _, message):
    print(message.payload.decode())
    there.set()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_message = heard
client.connect("127.0.0.1", 1883)
client.loop_start()
if sys.argv[1:]:
    client.publish(topic + "/commands", sys.argv[1], qos=1).wait_for_publish(30)
else:
    client.subscribe(topic, qos=1)
    there.wait(5)
"""


def hardware(*, port: int | None = None, publisher: int | None = None) -> Hardware:
    """Return a machine with a broker beside the image's node daemon."""
    dropin = f"[Service]\nEnvironment=ROUSE_HEALTH_SECONDS={HEALTH_SECONDS}\n"
    credentials = {
        "systemd.extra-unit.test-broker.service": _BROKER,
        "systemd.unit-dropin.rouse-healthy.service": dropin,
    }
    network = Network(
        forward={port: SSH_PORT} if port is not None else {},
        reaches={ADDRESS: publisher} if publisher is not None else {},
    )
    return Hardware(command_line="systemd.wants=test-broker.service", credentials=credentials, network=network)


async def configure(machine: Machine, releases: Releases) -> None:
    """Write the settings, and the key that updates are verified with; start what they are for."""
    await put(machine, "/etc/rouse/rouse.toml", _CONFIGURATION.encode())
    await put(machine, "/etc/systemd/import-pubring.pgp", releases.keys.read_bytes())
    await put(machine, "/var/lib/talk.py", _TALK.format(node=NODE).encode())
    await machine.run("chmod 644 /etc/rouse/rouse.toml; systemctl restart rouse-node.service", 900)


async def put(machine: Machine, path: str, content: bytes) -> None:
    """Write a file."""
    # A terminal takes 4096 characters a line.
    lines = "\n".join(content.hex()[at : at + 2000] for at in range(0, len(content.hex()), 2000))
    program = f"import sys; open({path!r}, 'wb').write(bytes.fromhex(sys.stdin.read()))"
    await machine.run(
        f'mkdir -p {Path(path).parent} && cat > /run/hex <<"END"\n{lines}\nEND\npython3 -c "{program}" < /run/hex'
    )


async def ask(machine: Machine, action: str, **more: Any) -> None:
    """Ask the node for something, as Home Assistant does."""
    command = json.dumps({"id": secrets.token_hex(16), "action": action, **more})
    await machine.run(f"/usr/lib/rouse/bin/python /var/lib/talk.py '{command}'", 120)


async def told(machine: Machine) -> dict[str, Any]:
    """Return what the node says of its updates; nothing while the bus is not there."""
    try:
        found: dict[str, Any] = json.loads(await machine.run("/usr/lib/rouse/bin/python /var/lib/talk.py", 120))
    except (MachineError, ValueError):
        return {}
    return found


async def wait_told(
    machine: Machine, states: set[str], seconds: float = 1800, *, version: str | None = None
) -> dict[str, Any]:
    """Wait until the node says that it is in one of the states, with that version if one is given."""
    end = time.monotonic() + seconds
    while True:
        last = await told(machine)
        if last.get("state") in states and version in {None, last.get("version")}:
            return last
        if time.monotonic() > end:
            logs = await machine.run("journalctl -u rouse-node -u 'rouse-update*' -n 60 --no-pager", check=False)
            raise AssertionError(f"not one of {states}: {last}\n{logs}")
        await asyncio.sleep(2)


async def version(machine: Machine) -> str:
    """Return the version that runs."""
    return (await machine.run(". /usr/lib/os-release; echo $IMAGE_VERSION")).strip()


async def kernels(machine: Machine) -> list[str]:
    """Return the boot loader's kernels."""
    return (await machine.run("ls /boot/EFI/Linux")).split()


async def wait_restarted(machine: Machine, until: str, seconds: float = UPDATE_SECONDS) -> None:
    """Wait until the machine has restarted, as often as it likes, and a version is up."""
    end = time.monotonic() + seconds
    while True:
        await machine.wait_shell(max(60.0, end - time.monotonic()))
        boot = await version(machine)
        if boot == until:
            await machine.wait_started(BOOT_SECONDS)
            return
        if time.monotonic() > end:
            raise AssertionError(f"version {boot} runs instead of {until}:\n{machine.console.tail()}")


async def downtime(port: int, until: asyncio.Event) -> float:
    """Ask for SSH's greeting again and again; return the longest time without one until told to end."""
    longest, last = 0.0, time.monotonic()
    while not until.is_set():
        if await _greets(port):
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        await asyncio.sleep(0.5)
    return longest


async def _greets(port: int) -> bool:
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return (await reader.read(4)) == b"SSH-"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
