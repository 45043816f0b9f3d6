"""Renewal over real brokers: a node follows the house, and nobody else leads it astray."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance import durable_files
from appliance.bus.certificate_messages import CertificateAnswer, HouseTrust
from appliance.bus.client import Bus
from appliance.bus.topics import CERTIFICATE_ANSWER, CERTIFICATE_REQUEST, HOUSE_TRUST
from appliance.pairing.identity import NodeKey
from appliance.security.ca import certificates
from appliance.security.ca.authority import Authority
from appliance.security.ca.errors import CaStorageError
from appliance.security.ca.renewal import NodeRenewal
from appliance.security.ca.renewal_desk import RenewalDesk, trust_of
from appliance.security.ca.store import CaStore
from appliance.security.paired import PairingFiles
from tests.system.client import Inbox
from tests.system.conftest import RunningBroker
from tests.unit.security.ca.conftest import Clock

pytestmark = pytest.mark.broker

DAYS = 90
NODE = "attic"


@dataclass
class Both:
    """A hub that answers, and a node that asks; their time is a test's."""

    clock: Clock
    authority: Authority
    desk: RenewalDesk
    files: PairingFiles
    renewal: NodeRenewal
    hub: Bus
    other: Bus
    requests: Inbox
    used: list[str]
    """The certificates that the node took into use."""

    @property
    def certificate(self) -> bytes:
        return self.files.certificate.read_bytes()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.used) < count:
                await asyncio.sleep(0.02)

    def look(self) -> None:
        """Have the node look at its clock."""
        self.renewal._look.set()


@pytest.fixture
async def both(broker: RunningBroker, tmp_path: Path) -> AsyncIterator[Both]:
    clock = Clock()
    authority = Authority(CaStore(tmp_path / "ca"), house="house", clock=clock)
    files = PairingFiles(tmp_path / "node")
    key = NodeKey.open(files.key)
    chain = authority.sign(key.request_pem(NODE), name=NODE, roles=("expert",), days=DAYS)
    durable_files.write(files.certificate, chain, mode=0o600)
    durable_files.write(files.ca, authority.ca_pem, mode=0o600)
    hub, node, other = broker.bus("hub"), broker.bus("node"), broker.bus("other", "homeassistant")
    used: list[str] = []
    requests = Inbox()
    other.subscribe(CERTIFICATE_REQUEST, requests)
    desk = RenewalDesk(bus=hub, authority=authority, days=DAYS)
    renewal = NodeRenewal(
        node=NODE,
        files=files,
        bus=node,
        changed=lambda: used.append(files.certificate.read_text()),
        clock=clock,
        retry_seconds=0.2,
    )
    async with AsyncExitStack() as stack:
        for bus in (hub, node, other):
            await stack.enter_async_context(bus)
            await bus.wait_connected(10)
        await desk.tell()
        running = asyncio.create_task(renewal.run())
        yield Both(clock, authority, desk, files, renewal, hub, other, requests, used)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_two_thirds_of_the_time_and_not_before(both: Both) -> None:
    first, key = both.certificate, both.files.key.read_bytes()
    both.clock.pass_days(DAYS / 2)
    both.look()
    await asyncio.sleep(0.3)
    assert both.certificate == first
    assert both.requests.messages == []
    both.clock.pass_days(DAYS / 6 + 1)
    both.look()
    await both.until(1)
    assert both.certificate != first
    assert both.files.key.read_bytes() == key
    assert [one.name for one in both.authority.issued()] == [NODE, NODE]
    # And again, as long as anybody lives.
    for count in (2, 3):
        both.clock.pass_days(DAYS * 0.7)
        both.look()
        await both.until(count)
    ends = certificates.certificates_of(both.certificate)[0].not_valid_after_utc
    assert ends > dt.datetime.fromtimestamp(both.clock.now, dt.UTC) + dt.timedelta(days=DAYS - 1)


async def test_a_hub_that_does_not_answer_is_asked_again(both: Both) -> None:
    first = both.certificate
    renew = both.authority.renew
    both.authority.renew = fail  # type: ignore[method-assign]
    both.clock.pass_days(DAYS * 0.7)
    both.look()
    await both.requests.wait_for(2, 20)
    assert both.certificate == first
    both.authority.renew = renew  # type: ignore[method-assign]
    await both.until(1)
    assert both.certificate != first


def fail(request_pem: bytes, *, name: str, days: int) -> bytes:
    raise CaStorageError(f"the disk is full: {name}, {days} days, {len(request_pem)} bytes")


async def test_another_ca_is_followed(both: Both) -> None:
    first = both.certificate
    both.authority.rotate()
    await both.desk.tell()
    await both.until(2)
    assert both.files.ca.read_bytes() == both.authority.ca_pem
    assert both.certificate != first
    assert both.authority.is_current(both.certificate)
    both.clock.pass_days(91)
    both.authority.maintain()
    await both.desk.tell()
    await both.until(3)
    assert both.files.ca.read_bytes() == both.authority.ca_pem
    assert both.files.ca.read_text().count("BEGIN CERTIFICATE") == 1


async def test_a_ca_that_nobody_has_certified_is_not_followed(both: Both, tmp_path: Path) -> None:
    """Whoever may write on the bus, Home Assistant for one, can say so; it leads nowhere."""
    before, first = both.files.ca.read_bytes(), both.certificate
    evil = Authority(CaStore(tmp_path / "evil"), house="house", clock=both.clock)
    for lie in (
        trust_of(evil),
        HouseTrust(ca_pem=evil.ca_pem.decode() + before.decode()),
        HouseTrust(ca_pem=evil.ca_pem.decode(), crossed_pem=evil.ca_pem.decode()),
        HouseTrust(ca_pem=evil.ca_pem.decode(), crossed_pem=first.decode()),
        HouseTrust(ca_pem="nonsense"),
        HouseTrust(ca_pem=""),
        HouseTrust(ca_pem=before.decode(), crossed_pem="nonsense"),
    ):
        await both.other.publish(HOUSE_TRUST, lie)
    # A node's own certificate is no CA, though the CA has signed it.
    signer = certificates.Signer(
        certificates.load_key(both.files.key.read_bytes()), certificates.certificates_of(first)[0]
    )
    own = certificates.ca_certificate("Rouse CA evil", signer.key, now=dt.datetime.now(dt.UTC), days=30)
    await both.other.publish(
        HOUSE_TRUST, HouseTrust(ca_pem=certificates.joined([own]).decode(), crossed_pem=first.decode())
    )
    await asyncio.sleep(1)
    assert both.files.ca.read_bytes() == before
    assert both.certificate == first
    assert both.used == []
    await both.desk.tell()


async def test_an_answer_that_is_none_of_its_own_is_ignored(both: Both, tmp_path: Path) -> None:
    first = both.certificate
    evil = Authority(CaStore(tmp_path / "evil"), house="house", clock=both.clock)
    key = NodeKey.open(both.files.key)
    of_evil = evil.sign(key.request_pem(NODE), name=NODE, roles=("expert",), days=DAYS).decode()
    other = NodeKey.open(tmp_path / "other.key")
    of_other = both.authority.sign(other.request_pem("cellar"), name="cellar", roles=("expert",), days=DAYS).decode()
    of_key = both.authority.sign(other.request_pem(NODE), name=NODE, roles=("expert",), days=DAYS).decode()
    renamed = both.authority.sign(key.request_pem(NODE), name="cellar", roles=("expert",), days=DAYS).decode()
    refuse = both.authority.renew
    both.authority.renew = fail  # type: ignore[method-assign]
    both.clock.pass_days(DAYS * 0.7)
    both.look()
    await both.requests.wait_for(1, 20)
    for pem in (of_evil, of_other, of_key, renamed, "nonsense", ""):
        count = len(both.requests.messages)
        await both.requests.wait_for(count + 1, 20)
        asked = both.renewal._asked
        await both.other.publish(CERTIFICATE_ANSWER, CertificateAnswer(id=asked, certificate_pem=pem), node=NODE)
    await both.other.publish(
        CERTIFICATE_ANSWER, CertificateAnswer(id="another-request", certificate_pem=first.decode()), node=NODE
    )
    await asyncio.sleep(0.5)
    assert both.certificate == first
    assert both.used == []
    both.authority.renew = refuse  # type: ignore[method-assign]


async def test_a_revoked_node_gets_none(both: Both, caplog: pytest.LogCaptureFixture) -> None:
    first = both.certificate
    both.authority.revoke(NODE)
    both.clock.pass_days(DAYS * 0.7)
    both.look()
    await both.requests.wait_for(2, 20)
    assert both.certificate == first
    assert [one.revoked is not None for one in both.authority.issued()] == [True]
    assert "attic has no certificate that counts; pair it anew" in caplog.text
