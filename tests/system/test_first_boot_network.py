"""What first boot writes for systemd-networkd, read by the real one in a network namespace."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NETWORKD = next(
    (path for path in ("/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd") if Path(path).exists()),
    None,
)
ROOT = Path(__file__).parents[2]
SPACE = "rpair-net"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
    pytest.mark.skipif(NETWORKD is None, reason="systemd-networkd is not installed"),
]

# networkd sees the files of first boot, an empty /run, and the namespace's interfaces alone. Where /sys is read-only it
# does not wait for udev.
SCRIPT = """
mount -t tmpfs none /run
mount --bind "$1/etc/systemd/network" /etc/systemd/network
mount -o remount,bind,ro /sys
SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=info "$2" 2> "$1/networkd.log" &
networkd=$!
for _ in $(seq 100); do
    ip -o address show dev rpair2 | grep -q "$3" && break
    sleep 0.1
done
ip -o address show dev rpair2
ip route show default
kill "$networkd"
wait "$networkd"
"""


@pytest.fixture
def space() -> Iterator[None]:
    """A network namespace with one wired interface."""

    def run(*command: str, check: bool = True) -> None:
        subprocess.run(["ip", *command], check=check, capture_output=True, timeout=30)

    run("netns", "del", SPACE, check=False)
    try:
        run("netns", "add", SPACE)
        # A pair that is named like wired interfaces; networkd takes veth for Type=ether.
        run("-n", SPACE, "link", "add", "rpair2", "type", "veth", "peer", "name", "rpair3")
        run("-n", SPACE, "link", "set", "rpair3", "up")
        yield
    finally:
        run("netns", "del", SPACE, check=False)


@pytest.mark.usefixtures("space")
def test_a_fixed_address(tmp_path: Path) -> None:
    stick, root = tmp_path / "stick", tmp_path / "root"
    for folder in (stick, root):
        folder.mkdir()
    (stick / "rouse.toml").write_text(
        "[network.static]\naddress = '10.213.78.20/24'\ngateway = '10.213.78.1'\ninterface = 'rpair2'\n"
        "[network.wifi]\nssid = 'not here'\npsk = 'a passphrase'\ncountry = 'DE'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "appliance", "first-boot", "apply", "--from", str(stick), "--root", str(root)],
        check=True, timeout=60, env=environment,
    )  # fmt: skip
    done = subprocess.run(
        ["ip", "netns", "exec", SPACE, "unshare", "--mount", "sh", "-c", SCRIPT, "sh",
         str(root), str(NETWORKD), "10.213.78.20"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    log = (root / "networkd.log").read_text()
    assert "10.213.78.20/24" in done.stdout, done.stdout + done.stderr + log
    assert "default via 10.213.78.1" in done.stdout
    assert (root / "etc/systemd/network/20-rouse-wifi.network").exists()
    # Complaints about a file begin with its name and line.
    assert ".network:" not in log
