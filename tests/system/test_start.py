"""How the hub starts and stops: every way in which it can't ends with one clear line."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from appliance.bus.client import Bus
from appliance.bus.connection import Connection
from appliance.bus.messages import Presence
from appliance.bus.topics import HUB_ANNOUNCEMENT, HUB_STATUS
from appliance.security.layout import secret_file
from appliance.settings.model import BrokerSettings
from scripts.house.mosquitto import mosquitto, program
from scripts.house.processes import child, free_port
from tests.system.client import Inbox
from tests.system.conftest import PASSWORDS, RunningBroker

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


class HubProcess:
    """`rouse hub` with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "hub.log"
        self.environment = {"ROUSE_CONFIG_DIR": str(folder), "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}

    def configure(self, *broker: str, gateway_port: int = 0) -> None:
        lines = [
            "[node]",
            'name = "demo"',
            "[paths]",
            f'state = "{self._folder / "state"}"',
            "[gateway]",
            f"port = {gateway_port}",
        ]
        (self._folder / "rouse.toml").write_text("\n".join([*lines, "[broker]", *broker]) + "\n")

    def external(self, port: int, password: str, *more: str, scheme: str = "mqtt") -> None:
        file = self._folder / "password"
        file.write_text(password)
        url = f'url = "{scheme}://127.0.0.1:{port}"'
        self.configure(url, 'username = "rouse"', f'password_file = "{file}"', *more)

    async def start(self, stack: AsyncExitStack) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "appliance", "hub"]
        return await stack.enter_async_context(child(command, log=self._log, environment=self.environment))

    async def fails(self, seconds: float = 30) -> str:
        """Run the hub to its end and return its last line."""
        async with AsyncExitStack() as stack:
            process = await self.start(stack)
            async with asyncio.timeout(seconds):
                assert await process.wait() == 1, self.log
        assert "Traceback" not in self.log
        return self.log.splitlines()[-1]

    async def until_it_says(self, text: str, seconds: float = 30) -> None:
        try:
            async with asyncio.timeout(seconds):
                while text not in self.log:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not said: {text}\n{self.log}") from None

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def hub(tmp_path: Path) -> HubProcess:
    return HubProcess(tmp_path)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[RunningBroker]:
    async with RunningBroker(lambda port: mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS)) as running:
        yield running


async def presence_of(connection: Connection, *, count: int) -> list[Presence]:
    """Return what the hub says of itself."""
    inbox, announced = Inbox(), Inbox()
    bus = Bus(connection, identifier="observer")
    bus.subscribe(HUB_STATUS, inbox)
    bus.subscribe(HUB_ANNOUNCEMENT, announced)
    async with bus:
        await bus.wait_connected(10)
        await announced.wait_for(1)
        await inbox.wait_for(count)
    return [message for message, _ in inbox.messages]


async def test_with_its_own_broker_it_starts_and_stops_cleanly(hub: HubProcess) -> None:
    port = free_port()
    hub.configure(f"listen_port = {port}")
    async with AsyncExitStack() as stack:
        process = await hub.start(stack)
        await hub.until_it_says("connected to the MQTT broker")
        password = secret_file(hub._folder / "state", "broker-homeassistant.password")
        connection = Connection("127.0.0.1", port, "homeassistant", password.read_text().strip())
        assert await presence_of(connection, count=1) == [Presence(state="online")]
        process.terminate()
        async with asyncio.timeout(15):
            assert await process.wait() == 0, hub.log
    assert "Traceback" not in hub.log


async def test_with_an_external_broker_it_leaves_offline_behind(hub: HubProcess, broker: RunningBroker) -> None:
    hub.external(broker.port, PASSWORDS["rouse"])
    async with AsyncExitStack() as stack:
        process = await hub.start(stack)
        await hub.until_it_says("connected to the MQTT broker")
        assert await presence_of(broker.connection("homeassistant"), count=1) == [Presence(state="online")]
        process.terminate()
        async with asyncio.timeout(15):
            assert await process.wait() == 0, hub.log
    # A late subscriber sees it too: it is retained.
    assert await presence_of(broker.connection("homeassistant"), count=1) == [Presence(state="offline")]


async def test_a_wrong_password_ends_it_with_one_line(hub: HubProcess, broker: RunningBroker) -> None:
    hub.external(broker.port, "wrong")
    assert await hub.fails() == (
        f"rouse: the MQTT broker at 127.0.0.1:{broker.port} refuses the user or the password: "
        "check broker.username and broker.password_file"
    )


async def test_a_broker_that_is_not_there_is_awaited_and_reported_once(hub: HubProcess, broker: RunningBroker) -> None:
    await broker.stop()
    hub.external(broker.port, PASSWORDS["rouse"])
    async with AsyncExitStack() as stack:
        await hub.start(stack)
        await hub.until_it_says("trying again")
        await asyncio.sleep(2)  # time for further attempts
        assert hub.log.count("trying again") == 1
        await broker.start()
        await hub.until_it_says("connected to the MQTT broker")


async def test_a_taken_broker_port_is_named_with_its_setting(hub: HubProcess, broker: RunningBroker) -> None:
    hub.configure(f"listen_port = {broker.port}")
    said = await hub.fails()
    assert f"can't listen on 127.0.0.1:{broker.port}" in said
    assert "Set broker.listen_port to a free port" in said


async def test_a_taken_gateway_port_is_named_with_its_setting(hub: HubProcess, broker: RunningBroker) -> None:
    hub.configure("listen_port = 0", gateway_port=broker.port)
    said = await hub.fails()
    assert f"the gateway can't listen on 127.0.0.1:{broker.port}" in said
    assert "Set gateway.port to a free port" in said


class Certificates:
    """A certificate authority, and a broker's certificate of it."""

    def __init__(self, folder: Path, *names: str) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(*names)
        self.authority, self.certificate, self.key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        folder.mkdir()
        authority.cert_pem.write_to_path(str(self.authority))
        issued.private_key_pem.write_to_path(str(self.key))
        for part in issued.cert_chain_pems:
            part.write_to_path(str(self.certificate), append=True)


async def test_over_tls_to_an_external_broker(hub: HubProcess, tmp_path: Path) -> None:
    good = Certificates(tmp_path / "good", "127.0.0.1")
    other = Certificates(tmp_path / "other", "127.0.0.1")
    port = free_port()
    tls = good.certificate, good.key
    async with mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS, tls=tls):
        hub.external(port, PASSWORDS["rouse"], f'ca_file = "{other.authority}"', scheme="mqtts")
        said = await hub.fails()
        assert f"the MQTT broker at 127.0.0.1:{port} has a certificate that can't be trusted" in said
        assert said.endswith("check broker.ca_file")

        hub.external(port, PASSWORDS["rouse"], f'ca_file = "{good.authority}"', scheme="mqtts")
        async with AsyncExitStack() as stack:
            await hub.start(stack)
            await hub.until_it_says("connected to the MQTT broker")


async def test_over_tls_with_its_own_broker_whatever_name_the_certificate_has(hub: HubProcess, tmp_path: Path) -> None:
    """The hub reaches its own broker on loopback, but the certificate is for the name that others use."""
    certificates = Certificates(tmp_path / "tls", "hub.house.example")
    port = free_port()
    hub.configure(
        f"listen_port = {port}",
        f'listen_cert_file = "{certificates.certificate}"',
        f'listen_key_file = "{certificates.key}"',
    )
    async with AsyncExitStack() as stack:
        await hub.start(stack)
        await hub.until_it_says("connected to the MQTT broker")
        password = (secret_file(hub._folder / "state", "broker-homeassistant.password")).read_text().strip()
        settings = BrokerSettings(
            username="homeassistant", password=SecretStr(password), ca_file=certificates.authority
        )
        stranger = Connection.to_external(settings, f"mqtts://127.0.0.1:{port}")
        assert stranger.tls is not None
        stranger.tls.check_hostname = False
        assert await presence_of(stranger, count=1) == [Presence(state="online")]


async def test_it_tells_systemd_when_it_is_ready_alive_and_about_to_end(hub: HubProcess, tmp_path: Path) -> None:
    hub.configure("listen_port = 0")
    address = tmp_path / "notify"
    hub.environment |= {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(address))
        heard.setblocking(False)
        async with AsyncExitStack() as stack, asyncio.timeout(30):
            process = await hub.start(stack)
            said: list[bytes] = []
            while said.count(b"WATCHDOG=1") < 2 or b"READY=1" not in said:
                said.append(await loop.sock_recv(heard, 4096))
            process.terminate()
            while said[-1] != b"STOPPING=1":
                said.append(await loop.sock_recv(heard, 4096))
            assert await process.wait() == 0, hub.log
