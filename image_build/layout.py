"""The disk's layout, for each architecture: the one place that knows partitions, labels, sizes and file names.

Partition types are those of the UAPI Group's Discoverable Partitions Specification. The unique identifiers of a root
and its verity partition are the two halves of the root hash, as that specification wants it, so that the root hash on
the kernel's command line is enough to find both.
"""

import re
import uuid
from dataclasses import dataclass
from typing import Literal

type Architecture = Literal["amd64", "arm64"]

MIB = 1 << 20
SECTOR = 512
ALIGNMENT = MIB
"""Partitions begin on whole mebibytes; the first one after the partition table's own."""

ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BASIC_DATA_TYPE = uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
VAR_TYPE = uuid.UUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d")

ESP_SIZE = 512 * MIB
CONFIG_SIZE = 32 * MIB
ROOT_SIZE = 2048 * MIB
VERITY_SIZE = 32 * MIB
"""A hash tree of SHA-256 over blocks of 4 KiB takes 0.8 % of its data."""
VAR_MINIMUM = 256 * MIB

CONFIG_LABEL = "ROUSE"
ESP_LABEL = "esp"
VAR_LABEL = "var"
EMPTY_LABEL = "_empty"
"""What systemd-sysupdate calls a slot that nothing is in."""

_NAMESPACE = uuid.UUID("5b7a2e6c-6f1c-5d2b-9c55-0e8f4f0f7c11")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.~]{0,23}")


@dataclass(frozen=True, slots=True)
class Platform:
    """What differs between architectures."""

    architecture: Architecture
    root_type: uuid.UUID
    verity_type: uuid.UUID
    kernel_package: str
    boot_loader: str
    """File name of systemd-boot, as firmware looks for it on a removable disk."""
    boot_loader_source: str
    stub: str
    serial_console: str
    qemu: str
    firmware: tuple[str, str]
    """Code and variables of UEFI for QEMU, in the tool root."""


PLATFORMS: dict[Architecture, Platform] = {
    "amd64": Platform(
        architecture="amd64",
        root_type=uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
        verity_type=uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
        kernel_package="linux-image-amd64",
        boot_loader="BOOTX64.EFI",
        boot_loader_source="systemd-bootx64.efi",
        stub="linuxx64.efi.stub",
        serial_console="ttyS0",
        qemu="qemu-system-x86_64",
        firmware=("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ),
    "arm64": Platform(
        architecture="arm64",
        root_type=uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
        verity_type=uuid.UUID("df3300ce-d69f-4c92-978c-9bfb0f38d820"),
        kernel_package="linux-image-arm64",
        boot_loader="BOOTAA64.EFI",
        boot_loader_source="systemd-bootaa64.efi",
        stub="linuxaa64.efi.stub",
        serial_console="ttyAMA0",
        qemu="qemu-system-aarch64",
        firmware=("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    ),
}


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of the disk image; positions in bytes."""

    name: str
    label: str
    type: uuid.UUID
    identity: uuid.UUID
    start: int
    size: int


def identity(name: str) -> uuid.UUID:
    """Return the same identifier for the same name in every build."""
    return uuid.uuid5(_NAMESPACE, name)


def root_label(version: str) -> str:
    """Return the label of a root's and its hash tree's partition."""
    return f"rouse_{version}"


def check_version(version: str) -> str:
    """Return the version, which goes into labels (36 characters) and names on FAT.

    Raises:
        ValueError: it holds something else than digits, letters, dots and tilde. A plus begins the boot loader's
            count of tries, a dash is no part of it either.
    """
    if _VERSION.fullmatch(version) is None:
        raise ValueError(
            f"{version!r} is no version of an image: it begins with a digit, goes on with letters, digits, '.' "
            "or '~', and has 24 characters at most"
        )
    return version


def split_root_hash(root_hash: str) -> tuple[uuid.UUID, uuid.UUID]:
    """Return the identifiers of the root's and the verity partition: the root hash's first and last 128 bits."""
    return uuid.UUID(root_hash[:32]), uuid.UUID(root_hash[-32:])


@dataclass(frozen=True, slots=True)
class Artifacts:
    """File names of what one build leaves; those of root, verity and kernel are the sources of systemd-sysupdate."""

    version: str
    architecture: Architecture

    @property
    def stem(self) -> str:
        """Return what all names begin with."""
        return f"rouse_{self.version}_{self.architecture}"

    @property
    def disk(self) -> str:
        """Return the name of the disk image."""
        return f"{self.stem}.raw.zst"

    def root(self, part: uuid.UUID) -> str:
        """Return the name of the root with this partition identifier."""
        return f"{self.stem}_{part}.root"

    def verity(self, part: uuid.UUID) -> str:
        """Return the name of the hash tree with this partition identifier."""
        return f"{self.stem}_{part}.verity"

    @property
    def kernel(self) -> str:
        """Return the name of the unified kernel image."""
        return f"{self.stem}.efi"

    @property
    def sbom(self) -> str:
        """Return the name of the bill of materials."""
        return f"{self.stem}.cdx.json"

    @property
    def oci(self) -> str:
        """Return the name of the OCI image."""
        return f"{self.stem}.oci.tar"

    @property
    def manifest(self) -> str:
        """Return the name of what the build says of itself."""
        return f"{self.stem}.json"


def kernel_name(version: str) -> str:
    """Return the name of an installed kernel, which systemd-sysupdate's `rouse_@v+@l-@d.efi` and `rouse_@v.efi` match.

    The first one carries no count of tries: there is nothing to fall back to.
    """
    return f"rouse_{version}.efi"


def partitions(platform: Platform, version: str, root_hash: str, var_size: int) -> tuple[Partition, ...]:
    """Return the partitions of a disk image in their order.

    Args:
        platform: the architecture's types.
        version: the image's.
        root_hash: of dm-verity, 64 hexadecimal digits.
        var_size: of the data partition, in bytes; it is the last one and grows at the first boot.
    """
    root, verity = split_root_hash(root_hash)
    plan = [
        ("esp", ESP_LABEL, ESP_TYPE, identity("esp"), ESP_SIZE),
        ("config", CONFIG_LABEL, BASIC_DATA_TYPE, identity("config"), CONFIG_SIZE),
        ("root-a", root_label(version), platform.root_type, root, ROOT_SIZE),
        ("verity-a", root_label(version), platform.verity_type, verity, VERITY_SIZE),
        ("root-b", EMPTY_LABEL, platform.root_type, identity("root-b"), ROOT_SIZE),
        ("verity-b", EMPTY_LABEL, platform.verity_type, identity("verity-b"), VERITY_SIZE),
        ("var", VAR_LABEL, VAR_TYPE, identity("var"), max(VAR_MINIMUM, _aligned(var_size))),
    ]
    found, start = [], ALIGNMENT
    for name, label, kind, unique, size in plan:
        found.append(Partition(name, label, kind, unique, start, size))
        start += size
    return tuple(found)


def disk_size(parts: tuple[Partition, ...]) -> int:
    """Return the disk image's size in bytes, with room for the second partition table at its end."""
    return parts[-1].start + parts[-1].size + ALIGNMENT


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
