"""The power goes at random moments while the machine writes; it always comes back, and nothing that was kept is lost.

The moments are drawn from ROUSE_SEED, which is printed; ROUSE_POWER_CUTS says how many (20).
"""

import asyncio
import os
import random
import shutil
from collections.abc import Awaitable, Callable

import pytest

from image_build.machine import Hardware, Machine
from tests.image.conftest import BOOT_SECONDS, WORK, Image, Report

pytestmark = [pytest.mark.image, pytest.mark.timeout(4 * 3600)]

CUTS = int(os.environ.get("ROUSE_POWER_CUTS", "20"))
LONGEST = 20.0
"""Seconds after the work has begun within which the power goes."""

type Work = Callable[[Machine], Awaitable[None]]

# Writes as an update does: a slot's partition, the boot partition, /etc and the data partition, again and again.
_WRITES = """
systemd-run --quiet --unit=writes --collect /bin/sh -c '
n=0
while :; do
  n=$((n+1))
  dd if=/dev/urandom of=/dev/disk/by-partlabel/_empty bs=1M count=8 conv=fsync 2> /dev/null
  cp /boot/EFI/Linux/rouse_*.efi /boot/EFI/Linux/.part && sync -f /boot && rm /boot/EFI/Linux/.part
  echo $n > /etc/rouse-counter.new && sync /etc/rouse-counter.new && mv /etc/rouse-counter.new /etc/rouse-counter
  head -c 4000000 /dev/urandom > /var/lib/part && sync /var/lib/part
done'
"""


async def _write(machine: Machine) -> None:
    await machine.run(_WRITES)


@pytest.mark.parametrize("work", [_write], ids=["writes"])
async def test_it_always_boots_and_nothing_is_lost(image: Image, report: Report, work: Work) -> None:
    seed = int(os.environ.get("ROUSE_SEED", random.randrange(10**6)))
    moments = random.Random(seed)
    print(f"ROUSE_SEED={seed}")  # noqa: T201 - to repeat it
    folder = WORK / "test" / "power"
    shutil.rmtree(folder, ignore_errors=True)
    identity, disk = "", None
    for cut in range(CUTS + 1):
        async with image.machine(folder, Hardware(memory=1024), disk=disk) as machine:
            disk = folder / "disk.raw"
            await machine.wait_up(BOOT_SECONDS)
            assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == "", cut
            found = (await machine.run("cat /etc/machine-id")).strip()
            if cut > 0:
                assert found == identity, f"another machine after cut {cut}"
                assert await machine.run("cat /var/lib/kept") == "kept\n"
                assert "errors" not in await machine.run("dumpe2fs -h /dev/disk/by-partlabel/var 2>&1 | grep state")
            identity = found
            await machine.run("echo kept > /var/lib/kept && sync -f /var/lib/kept /etc")
            if cut < CUTS:
                await work(machine)
                await asyncio.sleep(moments.uniform(0.5, LONGEST))
    report.rows["power cuts survived"] = CUTS
