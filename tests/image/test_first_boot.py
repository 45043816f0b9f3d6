"""What a person puts on the FAT partition is there for the first boot, and /etc's changes survive the next one."""

import shutil

import pytest

from image_build.machine import Hardware
from tests.image.conftest import BOOT_SECONDS, WORK, Image, copy_disk, put_on_config_partition

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]

FILE = '[node]\nname = "attic"\n'


async def test_the_file_is_seen_and_a_restart_keeps_what_the_machine_is(image: Image) -> None:
    folder = WORK / "test" / "first-boot"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = folder / "disk.raw"
    copy_disk(image.disk, disk)
    put_on_config_partition(image, disk, "rouse.toml", FILE)
    async with image.machine(folder, Hardware(memory=1024), disk=disk) as machine:
        await machine.wait_up(BOOT_SECONDS)
        assert await machine.run("cat /run/rouse/config/rouse.toml") == FILE
        identity = await machine.run("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub")
        await machine.run("echo attic > /etc/hostname")
        await machine.shell.send("systemctl poweroff\n")
        await machine.wait_off(120)
    async with image.machine(folder, Hardware(memory=1024), disk=disk) as machine:
        await machine.wait_up(BOOT_SECONDS)
        assert await machine.run("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub") == identity
        assert (await machine.run("cat /proc/sys/kernel/hostname")).strip() == "attic"
        assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == ""
