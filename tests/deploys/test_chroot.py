"""The base parts on a real root file system, by way of @chroot."""

import stat
import subprocess
from pathlib import Path

import pytest

from tests.deploys.house import House, Outcome, password_hash

PARTS = ("base", "users", "ssh", "overlay-keys", "overlay", "firewall")


@pytest.fixture(scope="module")
def settings(house: House) -> str:
    text = f"""
[node]
roles = ["hub", "expert"]
[system]
hostname = "hub"
time_zone = "Europe/Berlin"
time_servers = ["ntp.example.org"]
ssh_keys = ["{house.public_key}"]
password_hash = "{password_hash()}"
[gateway]
host = "0.0.0.0"
[experts.small]
model = "small.gguf"
host = "0.0.0.0"
port = 8110
[overlay]
kind = "wireguard"
address = "10.77.0.1/24"
"""
    house.host("hub", text)
    return text


@pytest.fixture(scope="module")
def first(house: House, root: Path, settings: str) -> Outcome:
    del settings
    return converge(house, root)


def converge(house: House, root: Path, *more: str) -> Outcome:
    parts = [argument for part in PARTS for argument in ("--part", part)]
    return house.deploy(f"@chroot{root}", "--as", "hub", *parts, *more)


def inside(root: Path, *command: str) -> str:
    return subprocess.run(["chroot", str(root), *command], check=True, capture_output=True, text=True).stdout


def test_first_run_changes_and_second_does_not(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0, first.output
    assert len(first.changed()) > 10
    second = converge(house, root)
    assert (second.code, second.changed()) == (0, [])
    operations = [len(part["operations"]) for machine in second.output["machines"] for part in machine["parts"]]
    assert sum(operations) > 10


def test_dry_run_changes_nothing(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0
    banner = root / "etc/systemd/journald.conf.d/50-rouse.conf"
    before = banner.read_text()
    banner.write_text("[Journal]\nStorage=none\n")
    dry = converge(house, root, "--dry")
    assert banner.read_text() == "[Journal]\nStorage=none\n"
    (changed,) = dry.changed()
    assert changed.endswith("base: Write /etc/systemd/journald.conf.d/50-rouse.conf")
    (difference,) = [
        operation["diff"]
        for part in dry.output["machines"][0]["parts"]
        for operation in part["operations"]
        if operation["outcome"] == "would change"
    ]
    assert "-Storage=none\n" in difference
    assert "+SystemMaxUse=" in difference
    assert len(converge(house, root).changed()) == 1
    assert banner.read_text() == before


def test_base(root: Path, first: Outcome) -> None:
    assert first.code == 0
    assert (root / "etc/hostname").read_text() == "hub\n"
    assert (root / "etc/localtime").readlink() == Path("../usr/share/zoneinfo/Europe/Berlin")
    assert "NTP=ntp.example.org" in (root / "etc/systemd/timesyncd.conf.d/50-rouse.conf").read_text()
    assert inside(root, "systemctl", "is-enabled", "systemd-timesyncd.service").strip() == "enabled"


def test_kernel_settings_exist(root: Path, first: Outcome) -> None:
    assert first.code == 0
    lines = (root / "etc/sysctl.d/50-rouse.conf").read_text().splitlines()
    names = [line.partition(" = ")[0] for line in lines if not line.startswith("#")]
    there = [name for name in names if Path("/proc/sys", *name.split(".")).exists()]
    assert len(there) >= len(names) - 2  # a kernel may be built without Yama or BPF


def test_users(root: Path, first: Outcome) -> None:
    assert first.code == 0
    accounts = {line.split(":")[0]: line.split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    for name, number in (
        ("rouse-hub", "811"),
        ("rouse-node", "812"),
        ("rouse-expert", "813"),
        ("rouse-console", "814"),
    ):
        assert (accounts[name][2], accounts[name][6]) == (number, "/usr/sbin/nologin")
    shared = {name: set(inside(root, "id", "-Gn", name).split()) - {name} for name in accounts if "rouse-" in name}
    assert shared == {
        "rouse-hub": {"rouse", "rouse-bus", "rouse-expert-key"},
        "rouse-node": {"rouse", "rouse-bus", "rouse-expert-key"},
        "rouse-expert": {"rouse-expert-key"},
        "rouse-console": {"rouse", "rouse-pairing"},
    }
    assert accounts["admin"][6] == "/bin/bash"
    assert (root / "home/admin").is_dir()


def test_admin_needs_a_password_for_sudo(root: Path, first: Outcome) -> None:
    assert first.code == 0
    assert inside(root, "visudo", "-c")
    rules = (root / "etc/sudoers.d/50-rouse").read_text()
    assert "NOPASSWD" not in rules
    assert stat.S_IMODE((root / "etc/sudoers.d/50-rouse").stat().st_mode) == 0o440
    refused = subprocess.run(
        ["chroot", str(root), "setpriv", "--reuid", "admin", "--regid", "admin", "--init-groups", "sudo", "-n", "id"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert refused.returncode != 0
    assert "a password is required" in refused.stderr


def test_passwordless_sudo_is_removed(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0
    rule = root / "etc/sudoers.d/90-cloud-init-users"
    rule.write_text("installer ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)
    (changed,) = converge(house, root).changed()
    assert changed.endswith("users: Remove sudo without a password")
    assert not rule.exists()
    assert converge(house, root).changed() == []


def test_ssh_server(root: Path, first: Outcome) -> None:
    assert first.code == 0
    inside(root, "sh", "-c", "mkdir -p /run/sshd && ssh-keygen -q -A && sshd -t")
    effective = dict(line.split(" ", 1) for line in inside(root, "sshd", "-T").splitlines())
    assert effective["permitrootlogin"] == "no"
    assert effective["passwordauthentication"] == "no"
    assert effective["authenticationmethods"] == "publickey"
    assert effective["authorizedkeysfile"] == ".ssh/authorized_keys /etc/ssh/authorized_keys.d/%u"
    for weak in ("sha1", "cbc", "nistp", "group14"):
        assert weak not in effective["ciphers"] + effective["macs"] + effective["kexalgorithms"]


def test_firewall_loads(root: Path, first: Outcome) -> None:
    assert first.code == 0
    rules = subprocess.run(
        ["unshare", "--net", "chroot", str(root), "sh", "-c", "nft -f /etc/nftables.conf && nft list ruleset"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    underlay = rules.partition("chain underlay")[2].partition("}\n\n")[0]
    overlay = rules.partition("chain overlay")[2].partition("}\n\n")[0]
    assert "tcp dport 8100 accept" in underlay
    assert "tcp dport 8110 accept" in underlay
    assert "tcp dport 8110 accept" in overlay
    assert 'iifname "rouse0" goto overlay' in rules
    assert inside(root, "systemctl", "is-enabled", "nftables.service").strip() == "enabled"


def test_no_key_of_the_overlay_in_a_folder(root: Path, first: Outcome) -> None:
    """What is made of the folder may become many machines, and each must have its own."""
    assert first.code == 0
    assert not list((root / "etc/systemd/network").glob("rouse-overlay*"))


def test_drift_is_mended(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0
    (root / "etc/sudoers.d/50-rouse").chmod(0o644)
    (root / "etc/sysctl.d/50-rouse.conf").unlink()
    inside(root, "userdel", "rouse-expert")
    inside(root, "systemctl", "--quiet", "disable", "nftables.service")
    assert [title.partition(": ")[2] for title in converge(house, root).changed()] == [
        "Write /etc/sysctl.d/50-rouse.conf",
        "Make the services' users",
        "Write /etc/sudoers.d/50-rouse",
        "Enable nftables.service",
    ]
    assert converge(house, root).changed() == []


def test_bad_rules_are_never_installed(house: House, root: Path, first: Outcome, settings: str) -> None:
    """A network that nft refuses, but the settings take: host names of ports can't come in, so break nft itself."""
    assert first.code == 0
    before = (root / "etc/nftables.conf").read_text()
    nft = root / "usr/sbin/nft"
    kept = nft.read_bytes()
    nft.write_text("#!/bin/sh\necho this is no rule >&2; exit 1\n")
    house.host("hub", settings.replace("8110", "8111"))
    try:
        outcome = converge(house, root)
    finally:
        nft.write_bytes(kept)
        house.host("hub", settings)
    assert outcome.code == 1
    failed = [one for part in outcome.output["machines"][0]["parts"] for one in part["operations"] if one["text"]]
    assert [(one["title"], one["text"]) for one in failed] == [("Write /etc/nftables.conf", "this is no rule")]
    assert (root / "etc/nftables.conf").read_text() == before
    assert not (root / "etc/nftables.conf.new").exists()


def test_secrets_are_not_told(first: Outcome, settings: str) -> None:
    hashed = settings.partition('password_hash = "')[2].partition('"')[0]
    assert hashed.startswith("$6$")
    assert hashed not in str(first.output) + first.errors


def test_password_outlives_an_update_of_the_image(house: House, root: Path, first: Outcome, settings: str) -> None:
    assert first.code == 0
    marker = root / "usr/lib/rouse-image"
    marker.mkdir()
    try:
        outcome = converge(house, root)
    finally:
        marker.rmdir()
    assert [title.partition(": ")[2] for title in outcome.changed()] == ["Write /etc/rouse/administrator.hash"]
    kept = root / "etc/rouse/administrator.hash"
    assert kept.read_text().strip() in settings
    assert (kept.stat().st_uid, stat.S_IMODE(kept.stat().st_mode)) == (0, 0o600)
    assert kept.read_text().strip() not in str(outcome.output)


def test_image_lacks_a_package(house: House, root: Path, first: Outcome, settings: str) -> None:
    assert first.code == 0
    marker = root / "usr/lib/rouse-image"
    marker.mkdir()
    house.host("hub", settings.replace('"wireguard"', '"tailscale"'))
    try:
        outcome = converge(house, root)
    finally:
        marker.rmdir()
        house.host("hub", settings)
    assert outcome.code == 1
    assert outcome.errors_of("overlay") == (
        "the image lacks tailscale, and nothing can be installed on it: "
        "add them to image_build/packages.py and update the machine to that image"
    )
