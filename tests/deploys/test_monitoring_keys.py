"""Two machines over real SSH: the key that a node's metrics want is made there, and the hub gets it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploys.booted import Booted, booted
from tests.deploys.house import House, Outcome
from tests.deploys.roots import PACKAGES, copy_of, debian_root
from tests.deploys.test_extras import EXTRAS
from tests.deploys.test_ssh import INSTALLER_PASSWORD, install, write_settings

PARTS = tuple(argument for part in ("users", "monitoring-keys", "monitoring") for argument in ("--part", part))
MORE = """
[monitoring]
enabled = true
[node]
status_host = "0.0.0.0"
"""
ON_NODE = "/var/lib/rouse/secrets/node/metrics.key"
ON_HUB = "/etc/prometheus/rouse/keys"


@pytest.fixture(scope="module")
def machines(debian: Path, house: House) -> Iterator[dict[str, Booted]]:
    del debian
    root = debian_root((*PACKAGES, *EXTRAS))
    with copy_of(root) as hub, copy_of(root) as attic:
        for one in (hub, attic):
            install(one, house)
        with booted(hub) as first, booted(attic) as second:
            found = {"hub": first, "attic": second}
            write_settings(house, found, user="installer", password=INSTALLER_PASSWORD, more=MORE)
            yield found


@pytest.fixture(scope="module")
def first(house: House, machines: dict[str, Booted]) -> Outcome:
    del machines
    return house.deploy(*PARTS)


def test_the_hub_has_the_nodes_keys(machines: dict[str, Booted], first: Outcome) -> None:
    assert first.code == 0, (first.output, first.errors)
    keys = {name: machine.run("cat", ON_NODE).strip() for name, machine in machines.items()}
    assert keys["hub"] != keys["attic"]
    for name, key in keys.items():
        assert len(key) >= 40
        assert machines["hub"].run("cat", f"{ON_HUB}/{name}.key").strip() == key
        assert machines["hub"].run("stat", "-c", "%a %U:%G", f"{ON_HUB}/{name}.key").strip() == "640 root:prometheus"
        assert machines[name].run("stat", "-c", "%a %U", ON_NODE).strip() == "600 rouse-node"
        assert key not in str(first.output)
        assert key not in first.errors
    assert '"10.77.0.2:8101"' in machines["hub"].run("cat", "/etc/prometheus/rouse/prometheus.yml")


def test_second_run_changes_nothing(house: House, first: Outcome) -> None:
    assert first.code == 0
    second = house.deploy(*PARTS)
    assert (second.code, second.changed()) == (0, [])


def test_a_machine_that_is_left_alone_keeps_its_key(house: House, machines: dict[str, Booted], first: Outcome) -> None:
    assert first.code == 0
    kept = machines["hub"].run("cat", f"{ON_HUB}/attic.key")
    alone = house.deploy("--limit", "hub", *PARTS)
    assert (alone.code, alone.changed()) == (0, [])
    assert machines["hub"].run("cat", f"{ON_HUB}/attic.key") == kept


def test_a_new_key_of_a_node_reaches_the_hub(house: House, machines: dict[str, Booted], first: Outcome) -> None:
    assert first.code == 0
    machines["attic"].run("rm", ON_NODE)
    assert house.deploy(*PARTS).code == 0
    new = machines["attic"].run("cat", ON_NODE)
    assert machines["hub"].run("cat", f"{ON_HUB}/attic.key") == new
