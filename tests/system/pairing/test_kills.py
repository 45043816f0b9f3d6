"""Either side killed at every step: nobody is ever half paired."""

from pathlib import Path

import pytest

from appliance.pairing.hub_ledger import HubLedger
from appliance.pairing.node_store import NodeStore
from appliance.security.paired import PairingFiles, read_pairing
from tests.killing import Child, preload
from tests.system.pairing import processes
from tests.system.pairing.processes import NODE
from tests.unit.pairing.offices import EXPERT_KEY, authority_of, has_account, offices, valid

MOST_STEPS = 160
NEVER = 0


@pytest.fixture(scope="module", autouse=True)
def _start_quickly() -> None:
    preload("tests.system.pairing.processes")


def pair(folder: Path, *, node_dies_at: int = NEVER, hub_dies_at: int = NEVER) -> tuple[bool, str | None]:
    """Run both once, and return whether the one that was to die did, and what the hub says."""
    node = Child(processes.node, folder / "node", node_dies_at)
    try:
        told = node.hear()
        if told is None or told == "paired":
            return node.join(), None
        hub = Child(processes.hub, folder / "hub", *told, hub_dies_at)
        try:
            outcome = hub.hear()
            killed = hub.join()
        finally:
            hub.end()
        if node_dies_at != NEVER and outcome != "claimed":
            killed |= node.join()
    finally:
        node.end()
    return killed, outcome


def restarted(folder: Path) -> bool:
    """Start both sides again, and return whether the node is paired."""
    authority_of(folder / "hub").maintain()
    HubLedger(folder / "hub/nodes", offices=offices(folder / "hub"), certificate_days=1).recover()
    NodeStore(folder / "node").recover()
    return read_pairing(folder / "node") is not None


def check_paired(folder: Path) -> None:
    """What the node has is what the hub accepts."""
    files, hub = PairingFiles(folder / "node"), folder / "hub"
    members = HubLedger(hub / "nodes", offices=offices(hub), certificate_days=1).members()
    assert members[NODE].state in {"handed_over", "paired"}
    assert has_account(hub, NODE, files.password.read_text().strip())
    assert files.expert_key.read_text().strip() == EXPERT_KEY
    authority = authority_of(hub)
    assert valid(authority)[NODE] == files.certificate.read_text()
    assert files.ca.read_bytes() == authority.ca_pem
    assert files.key.exists()
    assert not files.journal.exists()


def check_unpaired(folder: Path) -> None:
    files = PairingFiles(folder / "node")
    for path in (files.record, files.password, files.certificate, files.key, files.ca, files.expert_key):
        assert not path.exists(), path


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dying", ["node_dies_at", "hub_dies_at"])
def test_killed_at_every_step(tmp_path: Path, dying: str) -> None:
    outcomes: dict[str, int] = {}
    for step in range(1, MOST_STEPS):
        folder = tmp_path / str(step)
        (folder / "hub").mkdir(parents=True)
        killed, _ = pair(folder, **{dying: step})
        paired = restarted(folder)
        (check_paired if paired else check_unpaired)(folder)
        if not paired:
            again, outcome = pair(folder)
            assert (again, outcome) == (False, "claimed"), (step, outcome)
            assert restarted(folder)
            check_paired(folder)
        outcomes["paired" if paired else "not paired"] = outcomes.get("paired" if paired else "not paired", 0) + 1
        if not killed:
            break
    else:
        pytest.fail("there are more steps than expected")
    assert step > 10
    assert outcomes["paired"] >= 2
    assert outcomes["not paired"] >= 5
