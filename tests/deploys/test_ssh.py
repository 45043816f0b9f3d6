"""A house of two machines over real SSH: systemd, sshd, sudo and the firewall run on each of them."""

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.deploys.booted import Booted, booted
from tests.deploys.house import PASSWORD, House, Outcome, password_hash
from tests.deploys.roots import copy_of

PARTS = tuple(
    argument
    for part in ("base", "users", "ssh", "overlay-keys", "overlay", "firewall")
    for argument in ("--part", part)
)
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
INSTALLER_PASSWORD = "as it was installed"


@pytest.fixture(scope="module")
def machines(debian: Path, house: House) -> Iterator[dict[str, Booted]]:
    """Two machines as Debian's installer leaves them: one user, who may use sudo with a password."""
    with copy_of(debian) as hub, copy_of(debian) as attic:
        for root in (hub, attic):
            install(root, house)
        with booted(hub) as first, booted(attic) as second:
            found = {"hub": first, "attic": second}
            write_settings(house, found, user="installer", password=INSTALLER_PASSWORD)
            yield found


def install(root: Path, house: House) -> None:
    def inside(*command: str, stdin: str = "") -> None:
        subprocess.run(["chroot", str(root), *command], input=stdin, check=True, capture_output=True, text=True)

    inside("useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo", "installer")
    inside("chpasswd", stdin=f"installer:{INSTALLER_PASSWORD}")
    inside("ssh-keygen", "-q", "-A")
    keys = root / "home/installer/.ssh"
    keys.mkdir(mode=0o700)
    (keys / "authorized_keys").write_text(house.public_key + "\n")
    inside("chown", "-R", "installer:installer", "/home/installer/.ssh")


def write_settings(
    house: House, machines: dict[str, Booted], *, user: str, password: str, more: str = "", keys: str | None = None
) -> None:
    secret = house.folder / "sudo"
    secret.write_text(password + "\n")
    secret.chmod(0o600)
    group = f"""
[system]
ssh_keys = "{house.public_key if keys is None else keys}"
password_hash = "{HASH}"
[overlay]
kind = "wireguard"
[deploy]
user = "{user}"
key_file = "{house.key}"
known_hosts = "{house.folder / "known_hosts"}"
sudo_password_file = "{secret}"
{more}
"""
    (house.folder / "groups").mkdir(exist_ok=True)
    (house.folder / "groups" / "all.toml").write_text(group)
    for number, (name, role) in enumerate((("hub", "hub"), ("attic", "expert")), 1):
        house.host(
            name,
            f'[node]\nroles = ["{role}"]\n[overlay]\naddress = "10.77.0.{number}/24"\n'
            f'[deploy]\naddress = "{machines[name].address}"\n',
        )


HASH = password_hash()


class Watch:
    """Looks at every command line on a machine, again and again."""

    def __init__(self, machine: Booted) -> None:
        self.seen: set[str] = set()
        self._machine = machine
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def _look(self) -> None:
        while not self._end.is_set():
            self.seen.update(self._machine.command_lines())
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture(scope="module")
def first(house: House, machines: dict[str, Booted]) -> tuple[Outcome, set[str]]:
    with Watch(machines["hub"]) as watch:
        outcome = house.deploy(*PARTS)
    return outcome, watch.seen


def test_first_run(first: tuple[Outcome, set[str]], machines: dict[str, Booted]) -> None:
    outcome, _ = first
    assert outcome.code == 0, outcome.output
    for machine in machines.values():
        assert machine.run("systemctl", "is-enabled", "nftables.service").strip() == "enabled"
        assert machine.run("hostname").strip() in machines
        assert "table inet rouse" in machine.run("nft", "list", "tables")
        assert machine.run("sh", "-c", "ls /tmp | grep ^tmp || true").strip() == ""
        assert not (machine.root / "run/rouse-firewall-before.nft").exists()


def test_no_password_on_a_command_line(first: tuple[Outcome, set[str]], machines: dict[str, Booted]) -> None:
    outcome, seen = first
    assert any("sudo" in line for line in seen)
    assert not [line for line in seen if INSTALLER_PASSWORD in line or HASH in line]
    assert INSTALLER_PASSWORD not in str(outcome.output) + outcome.errors
    for machine in machines.values():
        journal = machine.run("journalctl", "--no-pager", "-o", "cat")
        assert "sudo" in journal
        assert INSTALLER_PASSWORD not in journal
        assert HASH not in journal


def test_overlay_keys(first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]) -> None:
    assert first[0].code == 0
    public = {}
    for name, machine in machines.items():
        listing = machine.run("stat", "-c", "%a %U:%G", "/etc/systemd/network/rouse-overlay.key").strip()
        assert listing == "640 root:systemd-network"
        public[name] = machine.run("sh", "-c", "wg pubkey < /etc/systemd/network/rouse-overlay.key").strip()
        assert (house.folder / "overlay" / f"{name}.pub").read_text().strip() == public[name]
    assert public["hub"] != public["attic"]
    netdev = machines["hub"].run("cat", "/etc/systemd/network/50-rouse-overlay.netdev")
    assert f"PublicKey={public['attic']}" in netdev
    assert f"Endpoint={machines['attic'].address}:51820" in netdev
    assert "AllowedIPs=10.77.0.2/32" in netdev
    assert "PrivateKey=" not in netdev


def test_second_run_changes_nothing(first: tuple[Outcome, set[str]], house: House) -> None:
    assert first[0].code == 0
    second = house.deploy(*PARTS)
    assert (second.code, second.changed()) == (0, [])


def test_as_the_administrator(first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]) -> None:
    """The deploy has made the user that it is done by from now on, with a password of its own."""
    assert first[0].code == 0
    write_settings(house, machines, user="admin", password=PASSWORD)
    outcome = house.deploy(*PARTS)
    assert (outcome.code, outcome.changed()) == (0, []), outcome.output


def test_preflight_comes_first(first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]) -> None:
    assert first[0].code == 0
    write_settings(house, machines, user="admin", password=PASSWORD)
    outcome = house.deploy("hub", "--part", "base", "--dry", preflight=True)
    assert re.search(r"^hub: (good|unfit)", outcome.errors, re.MULTILINE), outcome.errors
    unfit = "unfit: hub as hub" in outcome.errors
    assert bool(outcome.output) is not unfit


def test_wrong_password(first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]) -> None:
    assert first[0].code == 0
    write_settings(house, machines, user="admin", password="not that")
    outcome = house.deploy("hub", "--part", "base")
    write_settings(house, machines, user="admin", password=PASSWORD)
    assert outcome.code == 1
    assert outcome.output["machines"][0]["error"] == "sudo does not take the password, or the user may not use sudo"


def test_root_and_passwords_are_refused(
    first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]
) -> None:
    assert first[0].code == 0
    for user, options in (("root", []), ("admin", ["-o", "PubkeyAuthentication=no"])):
        done = subprocess.run(
            [*_SSH, "-i", str(house.key), *options, f"{user}@{machines['hub'].address}", "true"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 255
        assert "Permission denied (publickey)" in done.stderr


def test_unreachable_machine_leaves_others_alone(first: tuple[Outcome, set[str]], house: House) -> None:
    assert first[0].code == 0
    house.host(
        "gone", '[node]\nroles = ["expert"]\n[overlay]\nkind = "none"\n[deploy]\naddress = "127.0.0.1"\nport = 9\n'
    )
    try:
        outcome = house.deploy("hub", "gone", "--part", "base")
    finally:
        (house.folder / "hosts/gone.toml").unlink()
    errors = {machine["machine"]: machine["error"] for machine in outcome.output["machines"]}
    assert outcome.code == 1
    assert errors["hub"] is None
    assert "Unable to connect" in errors["gone"]


def test_firewall_that_would_cut_us_off_is_refused(
    first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]
) -> None:
    assert first[0].code == 0
    rules = machines["hub"].run("nft", "list", "ruleset")
    zone = '[network.zones.underlay]\nnetworks = ["192.168.77.0/24"]\n'
    write_settings(house, machines, user="admin", password=PASSWORD, more=zone)
    outcome = house.deploy("hub", "--part", "firewall")
    write_settings(house, machines, user="admin", password=PASSWORD)
    assert outcome.code == 1
    assert re.match(
        r"the firewall would cut off this connection: SSH from 10\.213\.\d+\.\d+ by eth0 to port 22 is in no zone",
        outcome.errors_of("firewall"),
    )
    assert machines["hub"].run("nft", "list", "ruleset") == rules


def test_firewall_is_taken_back_when_nobody_can_log_in(
    first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]
) -> None:
    """While the new rules are on trial, the machine begins to refuse logins, for a reason that the rules don't show."""
    assert first[0].code == 0
    hub = machines["hub"]
    rules = hub.run("nft", "list", "ruleset")
    trial = "while [ ! -e /run/rouse-firewall-before.nft ]; do sleep 0.02; done; echo closed > /run/nologin"
    zone = '[network.zones.underlay]\nservices = ["ssh"]\n'
    write_settings(house, machines, user="admin", password=PASSWORD, more=zone)
    closing = threading.Thread(target=hub.run, args=("timeout", "60", "sh", "-c", trial), name="closing")
    closing.start()
    try:
        outcome = house.deploy("hub", "--part", "firewall")
    finally:
        closing.join()
        hub.run("rm", "-f", "/run/nologin")
        write_settings(house, machines, user="admin", password=PASSWORD)
    assert outcome.code == 1
    (failed,) = [one for one in outcome.output["machines"][0]["parts"][0]["operations"] if one["outcome"] == "failed"]
    assert failed["title"] == "Apply the firewall's rules"
    assert failed["text"].startswith("a new connection failed after the change, which is taken back: ")
    assert hub.run("nft", "list", "ruleset") == rules
    mended = house.deploy("hub", "--part", "firewall")
    assert mended.code == 0
    assert house.deploy("hub", "--part", "firewall").changed() == []


def test_nobody_is_locked_out_of_ssh(
    first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]
) -> None:
    assert first[0].code == 0
    write_settings(house, machines, user="admin", password=PASSWORD, keys="")
    outcome = house.deploy("hub", "--part", "ssh")
    write_settings(house, machines, user="admin", password=PASSWORD)
    assert outcome.code == 1
    assert "system.ssh_keys is empty" in outcome.errors_of("ssh")


def test_own_first_boot_file_is_stronger(
    first: tuple[Outcome, set[str]], house: House, machines: dict[str, Booted]
) -> None:
    assert first[0].code == 0
    own = machines["attic"].root / "etc/rouse/rouse.toml"
    own.parent.mkdir(exist_ok=True)
    own.write_text('[system]\ntime_zone = "Asia/Tokyo"\n')
    outcome = house.deploy("attic", "--part", "base")
    assert [title.partition(": ")[2] for title in outcome.changed()] == ["Set the time zone"]
    assert machines["attic"].run("readlink", "/etc/localtime").strip() == "../usr/share/zoneinfo/Asia/Tokyo"
    own.write_text("[system]\ntime_zone = 'nowhere'\n")
    refused = house.deploy("attic", "--part", "base")
    own.unlink()
    assert refused.code == 1
    assert "attic:/etc/rouse/rouse.toml:2: system.time_zone" in refused.output["machines"][0]["error"]


def test_firewall_stops_what_is_not_open(first: tuple[Outcome, set[str]], machines: dict[str, Booted]) -> None:
    assert first[0].code == 0
    attic = machines["attic"]
    listen = ("systemd-run", "--quiet", "--unit=listening", "systemd-socket-activate", "--accept", "-l", "4711", "cat")
    attic.run(*listen)
    try:
        inside = "for _ in $(seq 50); do (echo > /dev/tcp/127.0.0.1/4711) 2> /dev/null && exit; sleep 0.1; done; exit 1"
        attic.run("bash", "-c", inside)
        dropped = subprocess.run(
            ["timeout", "2", "bash", "-c", f"echo > /dev/tcp/{attic.address}/4711"], check=False, capture_output=True
        )
    finally:
        attic.run("systemctl", "stop", "listening.service")
    assert dropped.returncode == 124  # dropped, not refused
