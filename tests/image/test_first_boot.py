"""What a person puts on the FAT partition counts, a wrong file is said everywhere, and what the machine is stays."""

import asyncio
import shutil
import time
from typing import Any

import aiohttp
import pytest

from image_build.machine import Hardware, Network
from tests.image.conftest import BOOT_SECONDS, WORK, Image, copy_disk, free_port, put_on_config_partition

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]

DOOR_PORT = 8104
FILE = """
[node]
name = "attic"

[system]
time_zone = "Europe/Berlin"
"""
BAD_FILE = """
[node]
name = "cellar"

[system]
time_zone = "Berlin"
"""


async def test_a_good_file_counts_and_a_bad_one_is_said(image: Image) -> None:
    folder = WORK / "test" / "first-boot"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = folder / "disk.raw"
    copy_disk(image.disk, disk)
    put_on_config_partition(image, disk, "rouse.toml", FILE)
    async with image.machine(folder, Hardware(memory=1024, network=Network()), disk=disk) as machine:
        await machine.wait_up(BOOT_SECONDS)
        assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == ""
        assert await machine.run("cat /run/rouse/config/rouse.toml") == FILE
        assert (await machine.run("cat /proc/sys/kernel/hostname")).strip() == "attic"
        assert (await machine.run("date +%Z")).strip() in {"CET", "CEST"}
        identity = await machine.run("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub")
        await machine.run("touch /etc/kept")
        await machine.shell.send("systemctl poweroff\n")
        await machine.wait_off(120)

    put_on_config_partition(image, disk, "rouse.toml", BAD_FILE)
    port = free_port()
    hardware = Hardware(memory=1024, network=Network(forward={port: DOOR_PORT}))
    async with image.machine(folder, hardware, disk=disk) as machine:
        await machine.wait_up(BOOT_SECONDS)
        assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == ""
        assert await machine.run("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; ls /etc/kept") == (
            identity + "/etc/kept\n"
        )
        assert (await machine.run("cat /proc/sys/kernel/hostname")).strip() == "attic", "nothing of it counts"
        beside = await machine.run("cat /run/rouse/config/rouse-errors.txt")
        assert "rouse.toml, line 6, system.time_zone" in beside
        assert "did you mean Europe/Berlin?" in beside
        await machine.console.expect(r"line 6, system\.time_zone", 600)
        told = await _told(port, 600)
        assert (told["state"], told["kept"]) == ("bad", True)
        assert told["problems"][0]["key"] == "system.time_zone"


async def _told(port: int, seconds: float) -> Any:
    """Ask the machine over HTTP what became of the file."""
    end = time.monotonic() + seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}/first-boot") as answer:
                    return await answer.json()
            except (aiohttp.ClientError, TimeoutError):
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(2)
