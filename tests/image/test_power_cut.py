"""The power goes at random moments, while the machine writes and while it is updated; it always comes back.

Nothing that was kept is lost, and what runs is one version or the other, whole.

The moments are drawn from ROUSE_SEED, which is printed; ROUSE_POWER_CUTS says how many (20).
"""

import asyncio
import os
import random
import shutil
import time
from collections import Counter

import pytest

from image_build.machine import Hardware, Machine, Network
from tests.image.conftest import BOOT_SECONDS, WORK, Image, Report
from tests.image.publisher import ADDRESS, Publisher
from tests.image.releases import make_releases, versions
from tests.image.updating import UPDATE_SECONDS, put, version

pytestmark = [pytest.mark.image, pytest.mark.timeout(4 * 3600)]

CUTS = int(os.environ.get("ROUSE_POWER_CUTS", "20"))
LONGEST = 20.0
"""Seconds after the work has begun within which the power goes."""
NEXT_BOOT = 45.0
"""Seconds of the first start of another version within which it may still go."""
HARDWARE = Hardware(memory=1024, network=Network())

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


def _moments() -> random.Random:
    seed = int(os.environ.get("ROUSE_SEED", random.randrange(10**6)))
    print(f"ROUSE_SEED={seed}")  # noqa: T201 - to repeat it
    return random.Random(seed)


async def test_it_always_boots_and_nothing_is_lost(image: Image, report: Report) -> None:
    moments = _moments()
    folder = WORK / "test" / "power"
    shutil.rmtree(folder, ignore_errors=True)
    identity, disk = "", None
    for cut in range(CUTS + 1):
        async with image.machine(folder, HARDWARE, disk=disk) as machine:
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
                await machine.run(_WRITES)
                await asyncio.sleep(moments.uniform(0.5, LONGEST))
    report.rows["power cuts survived"] = CUTS


SOURCE = "/var/lib/stick"
"""Where the machine has both versions, as on a USB stick: so that an update takes seconds and not a download."""
_DOWNLOAD = """
import sys, urllib.request
for name in {names!r}:
    with urllib.request.urlopen(f"http://{address}/{{name}}") as answer, open(f"{folder}/{{name}}", "wb") as file:
        while block := answer.read(1 << 20):
            file.write(block)
"""
# As the node daemon does, without it: from the files in its folder to the restart.
_UPDATE = """
systemd-run --quiet --unit=cut-update --collect /bin/sh -c '
mkdir -p /var/lib/rouse/updates && cp -r {source}/{version} /var/lib/rouse/updates/ &&
systemctl start rouse-update@{version}.service && systemctl reboot'
"""


async def _fill_stick(machine: Machine, publisher: Publisher, number: str) -> None:
    """Put a version's files on the machine's data partition."""
    folder = f"{SOURCE}/{number}"
    endings = (".root", ".verity", ".efi", "SHA256SUMS", "SHA256SUMS.gpg")
    names = [path.name for path in sorted(publisher.folder.iterdir()) if path.name.endswith(endings)]
    program = _DOWNLOAD.format(names=names, address=ADDRESS, folder=folder)
    await put(machine, "/var/lib/download.py", program.encode())
    await machine.run(f"mkdir -p {folder} && python3 /var/lib/download.py && sync", 900)


async def _check(machine: Machine, numbers: set[str], identity: str, *, former: str) -> str:
    """Check that the machine is one version, whole, with its data; return which one."""
    await machine.wait_up(BOOT_SECONDS)
    runs = await version(machine)
    assert runs in numbers
    assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == "", runs
    assert (await machine.run("cat /etc/machine-id")).strip() == identity
    assert await machine.run("cat /var/lib/kept") == "kept\n"
    assert (await machine.run("cat /etc/hostname")).strip() == "attic-computer"
    assert "errors" not in await machine.run("dumpe2fs -h /dev/disk/by-partlabel/var 2>&1 | grep state")
    if runs != former:
        # The root is proven block by block when it is read; so read all of it.
        await machine.run("cat /dev/mapper/root > /dev/null", 1800)
    return runs


async def test_an_update_is_done_or_not_done(image: Image, report: Report) -> None:
    """From one version to the other and back, each cut at a random moment between the first byte and the next boot."""
    moments, numbers = _moments(), versions(image)
    both = {numbers["first"], numbers["good"]}
    releases = make_releases(image)
    folder = WORK / "test" / "power-update"
    shutil.rmtree(folder, ignore_errors=True)
    async with Publisher(releases.good).serving() as publisher:
        hardware = Hardware(memory=1024, network=Network(reaches={ADDRESS: publisher.port}))
        async with image.machine(folder, hardware) as machine:
            await machine.wait_up(BOOT_SECONDS)
            identity = (await machine.run("cat /etc/machine-id")).strip()
            await put(machine, "/var/lib/kept", b"kept\n")
            await put(machine, "/etc/hostname", b"attic-computer\n")
            await put(machine, "/etc/systemd/import-pubring.pgp", releases.keys.read_bytes())
            for name in ("good", "first"):
                publisher.folder = getattr(releases, name)
                await _fill_stick(machine, publisher, numbers[name])
            # The firmware's word of this start; the next is of the one after the update.
            await machine.console.expect("BdsDxe: starting", 1)
            started = time.monotonic()
            await machine.run(_UPDATE.format(source=SOURCE, version=numbers["good"]))
            await machine.console.expect("BdsDxe: starting", UPDATE_SECONDS)
            longest = time.monotonic() - started + NEXT_BOOT
            print(f"the power goes within {longest:.1f} s")  # noqa: T201 - to follow it
            await machine.wait_up(BOOT_SECONDS)
            report.rows["update from a folder to the next boot, s"] = round(time.monotonic() - started, 1)
            assert await version(machine) == numbers["good"]
            await machine.run("sync")
    runs, seen = numbers["good"], Counter[str]()
    for cut in range(CUTS + 1):
        async with image.machine(folder, HARDWARE, disk=folder / "disk.raw") as machine:
            now = await _check(machine, both, identity, former=runs)
            seen["updated" if now != runs else "as before"] += cut > 0
            if cut < CUTS:
                runs = now
                (other,) = both - {now}
                moment = moments.uniform(0.5, longest)
                print(f"cut {cut}: {now} to {other}, after {moment:.1f} s")  # noqa: T201 - to follow it
                await machine.run(_UPDATE.format(source=SOURCE, version=other))
                await asyncio.sleep(moment)
    report.rows["power cuts of an update survived"] = f"{CUTS}, of which {seen['updated']} ended updated"
