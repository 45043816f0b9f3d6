"""One boot of the image, looked at from all sides."""

import json
import re
import shutil
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from image_build.machine import Hardware, Machine, Network
from tests.image.appliance import CONFIGURATION, GATEWAY_PORT, answered, retained
from tests.image.conftest import BOOT_SECONDS, WORK, Image, Report, copy_disk, free_port, put_on_config_partition

pytestmark = [pytest.mark.image, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

PORT = free_port()
MOST_EXPOSED = 2.5

# Units that are started now and then have to be named as well.
_EXPOSURE = """
systemd-analyze security --no-pager
units=$(ls /etc/systemd/system /usr/lib/systemd/system | grep '^rouse-.*[.]service$' | sort -u | sed 's/@[.]/@x./')
for unit in $units mosquitto.service; do
  systemd-analyze security --no-pager $unit | tail -n 1
done
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine(image: Image, report: Report) -> AsyncIterator[Machine]:
    folder = WORK / "test" / "boot"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = folder / "disk.raw"
    copy_disk(image.disk, disk)
    put_on_config_partition(image, disk, "rouse.toml", CONFIGURATION)
    started = time.monotonic()
    hardware = Hardware(network=Network(forward={PORT: GATEWAY_PORT}))
    async with image.machine(folder, hardware, disk=disk) as machine:
        await machine.wait_up(BOOT_SECONDS)
        report.rows["boot to all units up, s"] = round(time.monotonic() - started, 1)
        report.rows["emulation"] = "KVM" if image.kvm else "TCG"
        yield machine


async def test_no_unit_has_failed(machine: Machine) -> None:
    assert (await machine.run("systemctl list-units --failed --plain --no-legend")).strip() == ""


async def test_the_root_is_the_signed_one_and_read_only(machine: Machine, image: Image) -> None:
    assert (await machine.run("findmnt -n -o FSTYPE /")).strip() == "erofs"
    assert image.root_hash in await machine.run("veritysetup status root")
    assert "Read-only file system" in await machine.run("touch /usr/changed", check=False)


async def test_slots_and_partitions_are_the_layout_s(machine: Machine, image: Image) -> None:
    labels = (await machine.run("lsblk -n -r -o PARTLABEL /dev/vda")).split()
    name = f"rouse_{image.version}"
    assert labels == ["esp", "ROUSE", name, name, "_empty", "_empty", "var"]


async def test_the_data_partition_took_the_disk(machine: Machine) -> None:
    size = int(await machine.run("findmnt -n -b -o SIZE /var"))
    assert size > 3 << 30


async def test_identity_is_made_at_the_first_boot(machine: Machine, image: Image) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", (await machine.run("cat /etc/machine-id")).strip())
    keys = (await machine.run("ls /etc/ssh/ssh_host_*_key")).split()
    assert "/etc/ssh/ssh_host_ed25519_key" in keys
    upper = f"/var/lib/rouse-image/etc/{image.version}/upper"
    assert "machine-id" in await machine.run(f"ls {upper}")


async def test_etc_is_kept_by_version_and_known_to_be_good(machine: Machine, image: Image) -> None:
    assert (await machine.run("cat /var/lib/rouse-image/etc/last")).strip() == image.version


async def test_the_config_partition_explains_itself(machine: Machine) -> None:
    found = (await machine.run("ls /run/rouse/config")).split()
    assert {"README.txt", "rouse.toml.example"} <= set(found)
    assert "ro," in await machine.run("findmnt -n -o OPTIONS /run/rouse/config")


async def test_the_machine_looks_at_itself(machine: Machine) -> None:
    await machine.run("systemctl start rouse-preflight.service", 400)
    told = json.loads(await machine.run("cat /run/rouse/preflight/local.json"))
    (found,) = told["machines"]
    by = {check["id"]: check for check in found["checks"]}
    sound = ("system.distribution", "system.systemd", "system.python", "disk.file-system", "network.addresses")
    assert {name: by[name]["verdict"] for name in sound} == dict.fromkeys(sound, "ok"), by
    assert by["system.firmware"]["found"].startswith("UEFI")
    assert all(check["verdict"] == "ok" for name, check in by.items() if name.startswith("ports"))
    assert by["disk.file-system"]["found"].startswith("ext4")
    assert not any(check["needs_root"] for check in by.values())


async def test_the_boot_loader_knows_the_version(machine: Machine, image: Image) -> None:
    assert f"rouse_{image.version}.efi" in await machine.run("bootctl list --no-pager")


async def test_the_serial_console_speaks(machine: Machine) -> None:
    assert re.search(r"attic", machine.console.text)


async def test_hub_and_expert_answer_openai_and_mqtt(machine: Machine, report: Report) -> None:
    text, seconds = await answered(machine, PORT, 600)
    assert "three" in text
    report.rows["all units up to first answer, s"] = round(seconds, 1)
    messages = await retained(machine)
    status = messages["rouse/v1/nodes/attic/experts/small"]
    assert status["state"] == "ready"


async def test_every_unit_of_ours_is_confined(machine: Machine, report: Report) -> None:
    said = await machine.run(_EXPOSURE, 600)
    print(said)  # noqa: T201 - it is what people look for
    scores = {unit: float(score) for unit, score in re.findall(r"for (\S+\.service): (\d+\.\d+)", said)}
    report.rows.update({f"exposure of {unit}": score for unit, score in scores.items()})
    assert {"rouse-hub.service", "rouse-node.service", "mosquitto.service"} <= scores.keys()
    assert {unit: score for unit, score in scores.items() if score > MOST_EXPOSED} == {}
