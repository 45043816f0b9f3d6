"""A machine joins a wireless network by its file, on radios that the kernel simulates (mac80211_hwsim)."""

import shutil

import pytest

from image_build.machine import Hardware, Network
from tests.image.conftest import BOOT_SECONDS, WORK, Image, copy_disk, put_on_config_partition

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]

SLOW = "systemd.default_device_timeout_sec=900"
"""An emulated machine on busy processors may take longer than 90 seconds to find its disk."""
FILE = """
[node]
name = "attic"
[network.wifi]
ssid = "Café 1"
psk = "a passphrase"
country = "DE"
"""
# The first radio is the machine's; the second becomes the access point of the same iwd.
_RADIOS = """(
set -eu
modprobe mac80211_hwsim radios=2
for _ in $(seq 90); do
  [ "$(systemctl is-active iwd)" = active ] && [ "$(ls -d /sys/class/net/wlan* | wc -l)" = 2 ] && break
  sleep 1
done
systemctl is-active iwd
# iwd is active some moments before it knows the radios.
for _ in $(seq 60); do
  iwctl device wlan1 set-property Mode ap
  iwctl ap wlan1 start 'Café 1' 'a passphrase' && iw dev wlan1 info | grep -q 'type AP' && break
  sleep 1
done
iw dev wlan1 info
)"""
_JOINED = """(
for _ in $(seq 180); do iw dev wlan0 link | grep '^Connected to' && exit 0; sleep 1; done
iw dev; journalctl -u iwd -n 60 --no-pager; exit 1
)"""


async def test_it_joins(image: Image) -> None:
    folder = WORK / "test" / "wifi"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = folder / "disk.raw"
    copy_disk(image.disk, disk)
    put_on_config_partition(image, disk, "rouse.toml", FILE)
    # The cable makes it online at its start: the radios are there later only.
    hardware = Hardware(command_line=SLOW, network=Network())
    async with image.machine(folder, hardware, disk=disk) as machine:
        await machine.wait_up(2 * BOOT_SECONDS)
        # iwd does not run where there is nothing for it to do.
        assert (await machine.run("systemctl is-active iwd || true")).strip() == "inactive"
        assert "Passphrase=a passphrase" in await machine.run("cat /var/lib/iwd/*.psk")
        assert "Country=DE" in await machine.run("cat /etc/iwd/main.conf")
        await machine.run("networkctl reload")
        assert "type AP" in await machine.run(_RADIOS, 400)
        await machine.run(_JOINED, 400)
        exposure = await machine.run("systemd-analyze security --no-pager iwd.service | tail -n 1")
        assert float(exposure.split(":")[1].split()[0]) <= 2.5, exposure
        assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == ""
