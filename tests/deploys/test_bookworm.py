"""The version of Debian before: older programs take the same files."""

import subprocess
from pathlib import Path

import pytest

from tests.deploys.conftest import root_of
from tests.deploys.house import House
from tests.deploys.roots import copy_of
from tests.deploys.test_chroot import PARTS, inside


@pytest.mark.timeout(900)
def test_second_run_changes_nothing(house: House) -> None:
    house.host("hub", f'[system]\nhostname = "hub"\nssh_keys = "{house.public_key}"\n')
    parts = [argument for part in PARTS for argument in ("--part", part)]
    with copy_of(root_of("bookworm")) as root:
        first = house.deploy(f"@chroot{root}", "--as", "hub", *parts)
        assert first.code == 0, first.output
        assert house.deploy(f"@chroot{root}", "--as", "hub", *parts).changed() == []
        _check(root)


def _check(root: Path) -> None:
    inside(root, "sh", "-c", "mkdir -p /run/sshd && ssh-keygen -q -A && sshd -t && visudo -c")
    assert "mlkem" not in inside(root, "sshd", "-T")
    load = "nft -f /etc/nftables.conf && nft list table inet rouse"
    subprocess.run(["unshare", "--net", "chroot", str(root), "sh", "-c", load], check=True, capture_output=True)
