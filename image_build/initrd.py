"""The initial RAM disk: finds the root by its hash, mounts the data partition, and lays the machine's own /etc over it.

It is made by dracut in a root of its own and depends on nothing of the appliance but the kernel, so it is kept.
"""

from dataclasses import dataclass
from pathlib import Path

from image_build.cache import Cache, key_of
from image_build.errors import ImageError
from image_build.sandbox import Sandbox

FILES = Path(__file__).parent / "files" / "initrd"

_PROGRAMS = "cat cp e2fsck mkdir mount mv rm sync touch"
_MODULES = "bash systemd systemd-initrd systemd-veritysetup systemd-udevd dm fs-lib base"
_DRIVERS = (
    # File systems and what is under the root.
    *("erofs", "overlay", "vfat", "ext4", "nls_ascii", "nls_cp437", "nls_utf8", "dm_verity", "loop"),
    # Disks, of computers at home and of virtual machines.
    *("=drivers/ata", "=drivers/mmc", "=drivers/nvme", "=drivers/ufs", "=drivers/usb/storage", "=drivers/virtio"),
    *("sd_mod", "sr_mod", "sdhci_acpi", "sdhci_pci", "virtio_blk", "virtio_scsi", "virtio_console"),
    *("hv_storvsc", "hv_vmbus", "megaraid_sas", "mpt3sas", "vmd", "vmw_pvscsi", "xen_blkfront"),
    # Keyboards and ports, for whoever must help a machine to its feet.
    *("=drivers/usb/host", "hid_generic", "usbhid", "i8042", "atkbd"),
)
"""The kernel's modules that the root could be found with. All of them together would take 17 MiB more."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and what it boots with."""

    version: str
    image: Path
    initrd: Path


def kernel_version(root: Path) -> str:
    """Return the version of the one kernel in a root.

    Raises:
        ImageError: there is none, or more than one.
    """
    found = sorted(path.name for path in (root / "usr" / "lib" / "modules").glob("*") if (path / "kernel").is_dir())
    if len(found) != 1:
        raise ImageError(f"{root} should have one kernel, and has {', '.join(found) or 'none'}")
    return found[0]


def make_initrd(sandbox: Sandbox, *, cache: Cache, root_key: str, epoch: int) -> Kernel:
    """Make the initial RAM disk, or take the one that was made of the same root and files.

    Raises:
        ImageError: there is not one kernel.
        StepError: dracut fails.
    """
    version = kernel_version(sandbox.root)

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        sandbox.run(
            [
                *("dracut", "--force", "--quiet", "--no-hostonly", "--no-hostonly-cmdline", "--reproducible"),
                *("--kver", version, "--tmpdir", "/tmp", "--compress", "zstd -15 -T1"),  # noqa: S108 - the root's own
                *("--modules", _MODULES, "--add-drivers", " ".join(_DRIVERS)),
                *("--install", _PROGRAMS, "--include", "/run/files", "/", "/run/out/initrd"),
            ],
            binds={folder: "/run/out"},
            readable={FILES: "/run/files"},
            env={"SOURCE_DATE_EPOCH": str(epoch)},
        )

    folder, _ = cache.get("initrd", key_of(FILES, root_key, epoch, _PROGRAMS, _MODULES, _DRIVERS), make)
    return Kernel(version, sandbox.root / "boot" / f"vmlinuz-{version}", folder / "initrd")
