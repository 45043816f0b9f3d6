"""The CA killed before each call that reaches the disk: it is usable at the next start, and nothing is forgotten."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.pairing.identity import NodeKey
from appliance.security.ca.authority import Authority, ca_folder
from appliance.security.ca.store import CaStore
from appliance.security.house import House, house
from appliance.security.tls import Identity, server_context
from appliance.settings.model import BrokerSettings, PathSettings, Settings
from tests.killing import Child, Say, die_at, preload
from tests.unit.security.ca.conftest import shake_hands

MOST_STEPS = 120


@pytest.fixture(scope="module", autouse=True)
def _start_quickly() -> None:
    preload("tests.system.certificates.test_kills")


def offices(folder: Path) -> House:
    """Return a hub's offices, with a folder for mosquitto."""
    broker = BrokerSettings(url="mqtt://127.0.0.1", mosquitto_folder=folder / "mosquitto")
    return house(Settings(paths=PathSettings(state=folder), broker=broker), name="house")


def sign(authority: Authority, folder: Path, name: str) -> None:
    """Have a certificate issued, and kept as a node does once it has it."""
    key = NodeKey.open(folder / name / "node.key")
    chain = authority.sign(key.request_pem(name), name=name, roles=("expert",), days=30)
    (folder / name / "node.pem").write_bytes(chain)


def begin(folder: Path) -> None:
    """Make everything."""
    offices(folder).prepare()
    sign(offices(folder).trust.authority, folder, "attic")
    offices(folder).nodes.add("attic")


def revoke(folder: Path) -> None:
    """Let a node go."""
    made = offices(folder)
    made.nodes.remove("attic")
    made.trust.authority.revoke("attic")
    made.prepare()


def rotate(folder: Path) -> None:
    """Make another CA, and use it."""
    made = offices(folder)
    made.trust.authority.rotate()
    made.prepare()


def rotate_at_once(folder: Path) -> None:
    """Make another CA, and trust the former one no more."""
    made = offices(folder)
    made.trust.authority.rotate(at_once=True)
    made.prepare()


def run(_say: Say, work: Callable[[Path], None], folder: Path, kill_at: int) -> None:
    die_at(kill_at)
    work(folder)


def check(folder: Path) -> House:
    """Start again: the CA signs, the hub has a good certificate, and mosquitto's files belong together."""
    made = offices(folder)
    made.prepare()
    sign(made.trust.authority, folder, "cellar")
    cellar = folder / "cellar"
    identity = Identity(cellar / "node.pem", cellar / "node.key", made.trust.authority.ca_pem.decode())
    made.prepare()
    shake_hands(server_context(identity), made.trust.client("cellar"))
    beside = folder / "mosquitto"
    assert (beside / "server.pem").read_bytes() == made.trust.certificate.chain.read_bytes()
    assert (beside / "ca.pem").read_bytes() == made.trust.authority.ca_pem
    assert not made.mosquitto or not made.mosquitto.write()
    assert list(ca_folder(folder).rglob(".*")) == []
    for path in (*ca_folder(folder).rglob("*"), *(folder / "secrets").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    return made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("work", [begin, revoke, rotate, rotate_at_once])
def test_killed_at_every_write(tmp_path: Path, work: Callable[[Path], None]) -> None:
    killed, step = True, 0
    while killed:
        step += 1
        assert step < MOST_STEPS
        folder = tmp_path / str(step)
        folder.mkdir()
        if work is not begin:
            begin(folder)
        before = CaStore(ca_folder(folder)).issued()
        child = Child(run, work, folder, step)
        try:
            killed = child.join()
        finally:
            child.end()
        made = check(folder)
        kept = {one.serial for one in made.trust.authority.issued()}
        assert {one.serial for one in before} <= kept
        # It may be done or not, and doing it again does it.
        if work is not begin:
            work(folder) if work is not rotate or len(made.trust.authority.generations) == 1 else None
            made = check(folder)
        if work is revoke:
            attic = folder / "attic"
            identity = Identity(attic / "node.pem", attic / "node.key", made.trust.authority.ca_pem.decode())
            with pytest.raises(ssl.SSLError):
                shake_hands(server_context(identity), made.trust.client("attic"))
            assert "attic" not in (folder / "mosquitto" / "passwords").read_text()
    assert step > 5
