"""What the tests of the image need: a build, the tool root with QEMU, and machines that start from it."""

import asyncio
import json
import os
import platform as host
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance import __version__
from image_build.build import Build, Inputs
from image_build.errors import ImageError
from image_build.inspection import read_manifest
from image_build.layout import PLATFORMS, Platform, partitions
from image_build.machine import Hardware, Machine
from image_build.process import Runner
from image_build.sandbox import Sandbox
from image_build.source import checkout

WORK = Path(os.environ.get("ROUSE_IMAGE_WORK", checkout() / "build" / "image")).resolve()
DISK_SIZE = 8 << 30
BOOT_SECONDS = 1200
"""Emulated on a very busy machine; about a minute on a quiet one."""


@dataclass(frozen=True, slots=True)
class Image:
    """A build, unpacked."""

    folder: Path
    disk: Path
    tools: Sandbox
    platform: Platform
    version: str
    root_hash: str
    kvm: bool

    @asynccontextmanager
    async def machine(
        self, folder: Path, hardware: Hardware | None = None, *, disk: Path | None = None
    ) -> AsyncIterator[Machine]:
        """Switch a machine on, on a copy of the disk, or on a disk that it had before."""
        folder.mkdir(parents=True, exist_ok=True)
        own = disk or folder / "disk.raw"
        if disk is None:
            await asyncio.to_thread(copy_disk, self.disk, own)
        wanted = hardware or Hardware()
        hardware = Hardware(
            memory=wanted.memory,
            processors=wanted.processors,
            kvm=self.kvm,
            network=wanted.network,
            command_line=wanted.command_line,
            credentials=wanted.credentials,
        )
        async with Machine(own, folder=folder, tools=self.tools, platform=self.platform, hardware=hardware) as machine:
            yield machine


def copy_disk(source: Path, target: Path) -> None:
    """Copy a disk image, and make the disk larger than it, as a real one is."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    with target.open("r+b") as file:
        file.truncate(max(DISK_SIZE, source.stat().st_size))


def put_on_config_partition(image: Image, disk: Path, name: str, text: str) -> None:
    """Put a file on the FAT partition of a disk image, as a person does on a desktop."""
    parts = partitions(image.platform, image.version, image.root_hash, 0)
    start = next(part.start for part in parts if part.name == "config")
    command = ["mcopy", "-o", "-i", f"/run/disk@@{start}", "-", f"::/{name}"]
    image.tools.run(command, binds={disk: "/run/disk"}, env={"MTOOLS_SKIP_CHECK": "1"}, stdin=text)


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def tools() -> Sandbox:
    """The tool root, made if it is not there."""
    runner = Runner(WORK / "log" / "test.log", on_line=lambda _: None)
    inputs = Inputs(checkout(), __version__, "amd64", 0)
    try:
        return Build(inputs, work=WORK, output=WORK / "test", runner=runner, on_step=lambda _: None).tools()
    except ImageError as error:
        pytest.skip(f"the tool root can't be made here: {error}")


@pytest.fixture(scope="session")
def image(tools: Sandbox) -> Image:
    """The build in ROUSE_IMAGE, or that `make image` made."""
    folder = Path(os.environ.get("ROUSE_IMAGE", WORK / "out" / __version__)).resolve()
    try:
        manifest = read_manifest(folder)
    except ImageError as error:
        pytest.skip(f"there is no image; run make image first ({error})")
    work = WORK / "test"
    work.mkdir(parents=True, exist_ok=True)
    packed = next(folder.glob("*.raw.zst"))
    disk = work / f"disk-{manifest.root_hash[:16]}.raw"
    if not disk.exists():
        part = disk.with_suffix(".part")
        tools.run(
            ["zstd", "-q", "-d", "--long=27", "--sparse", "-f", "-o", f"/run/out/{part.name}", "/run/source"],
            binds={work: "/run/out"},
            readable={packed: "/run/source"},
        )
        part.rename(disk)
    return Image(
        folder=folder,
        disk=disk,
        tools=tools,
        platform=PLATFORMS[manifest.architecture],
        version=manifest.version,
        root_hash=manifest.root_hash,
        kvm=_kvm_boots(disk, tools, PLATFORMS[manifest.architecture]),
    )


def _kvm_boots(disk: Path, tools: Sandbox, platform: Platform) -> bool:
    """Tell whether KVM runs the firmware here: a device that is there may still not (a paravirtual KVM)."""
    if not os.access("/dev/kvm", os.W_OK) or os.environ.get("ROUSE_KVM") == "0":
        return False

    async def trial() -> bool:
        folder = WORK / "test" / "kvm"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        copy = folder / "disk.raw"
        copy_disk(disk, copy)
        try:
            async with Machine(
                copy, folder=folder, tools=tools, platform=platform, hardware=Hardware(kvm=True)
            ) as machine:
                await machine.console.expect(r"Linux version|Rouse \d|BdsDxe: starting", 25)
                return True
        except ImageError:
            return False
        finally:
            copy.unlink(missing_ok=True)

    return asyncio.run(trial())


@dataclass
class Report:
    """Numbers for the table that is printed at the end and kept beside the image."""

    rows: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """The table of sizes and times, with the machine's name beside it."""
    report = Report()
    yield report
    if not report.rows:
        return
    rows = {"processor": processor(), "cores": os.cpu_count(), **report.rows}
    kept = WORK / "report.json"
    if kept.exists():
        rows = {**json.loads(kept.read_text()), **rows}
    kept.write_text(json.dumps(rows, indent=1) + "\n")
    lines = ["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    (WORK / "report.md").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))  # noqa: T201 - it is what people look for


def processor() -> str:
    """Return the processor's model."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return host.machine()


type Machines = Callable[..., AbstractAsyncContextManager[Machine]]
