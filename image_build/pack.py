"""Packs a root into partitions: compressed read-only root with a hash tree, kernel, boot partition, data partition."""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from image_build.cache import remove
from image_build.errors import ImageError
from image_build.initrd import Kernel
from image_build.layout import (
    CONFIG_SIZE,
    ESP_SIZE,
    MIB,
    ROOT_SIZE,
    VAR_MINIMUM,
    VERITY_SIZE,
    Platform,
    identity,
    kernel_name,
)
from image_build.process import Runner
from image_build.sandbox import Sandbox

CONFIG_FILES = Path(__file__).parent / "files" / "config"

EROFS_OPTIONS = ("-zlz4hc,12", "-C65536", "-Eztailpacking")
"""docs/decisions/image-layout.md has what others came to."""
QUICK_EROFS_OPTIONS = ("-zlz4", "-C65536")
"""For trials: larger, and packed in a tenth of the time."""
_COMMAND_LINE = (
    "root=/dev/mapper/root rootfstype=erofs ro roothash={root_hash} systemd.firstboot=no console=tty0 "
    "console={serial},115200 quiet loglevel=4 panic=30 rd.shell=0 rd.emergency=reboot systemd.crash_action=reboot "
    "systemd.gpt_auto=1"
)
_LOADER = "timeout 2\nconsole-mode keep\neditor no\n"
_FREE_SPACE = 1.25
"""The data partition's files and what ext4 keeps for itself."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the partitions of a disk; each is a file."""

    root: Path
    verity: Path
    root_hash: str
    kernel: Path
    esp: Path
    config: Path
    var: Path


@dataclass(frozen=True, slots=True)
class Packer:
    """Packs one version of the image.

    Attributes:
        tools: root with the programs.
        runner: runs programs.
        folder: where the files go.
        platform: the architecture.
        version: the image's.
        epoch: time stamp of everything, in seconds since 1970.
        compression: options of mkfs.erofs.
    """

    tools: Sandbox
    runner: Runner
    folder: Path
    platform: Platform
    version: str
    epoch: int
    compression: tuple[str, ...] = EROFS_OPTIONS

    def pack(self, root: Path, kernel: Kernel, models: Path | None) -> Contents:
        """Make the files of all partitions.

        Args:
            root: the finished root file system.
            kernel: its kernel, with the initial RAM disk.
            models: folder of models that go onto the data partition.

        Raises:
            StepError: a program fails.
            ImageError: something is too large for its partition.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        packed = self.root(root)
        verity, root_hash = self.verity(packed)
        linux = self.kernel(root, kernel, root_hash)
        return Contents(
            root=packed,
            verity=verity,
            root_hash=root_hash,
            kernel=linux,
            esp=self.esp(root, linux),
            config=self.config(),
            var=self.var(models),
        )

    def root(self, root: Path) -> Path:
        """Make the compressed read-only file system (EROFS)."""
        target = self._fresh("root.erofs")
        self._run(
            [
                "mkfs.erofs",
                "--quiet",
                *self.compression,
                f"-T{self.epoch}",
                f"-U{self._identity('root')}",
                "/run/out/root.erofs",
                "/run/root",
            ],
            readable={root: "/run/root"},
        )
        return _fits(target, ROOT_SIZE, "the root file system")

    def verity(self, packed: Path) -> tuple[Path, str]:
        """Make the hash tree; return it and the root hash."""
        target = self._fresh("root.verity")
        said = self._fresh("root.hash")
        self._run(
            [
                *("veritysetup", "format", f"--uuid={self._identity('verity')}", f"--salt={self._salt()}"),
                *("--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096"),
                *(f"--root-hash-file=/run/out/{said.name}", f"/run/out/{packed.name}", f"/run/out/{target.name}"),
            ]
        )
        return _fits(target, VERITY_SIZE, "the hash tree"), said.read_text().strip()

    def kernel(self, root: Path, kernel: Kernel, root_hash: str) -> Path:
        """Make the unified kernel image: kernel, initial RAM disk and command line in one EFI program."""
        target = self._fresh(kernel_name(self.version))
        line = _COMMAND_LINE.format(root_hash=root_hash, serial=self.platform.serial_console)
        self._run(
            [
                *("ukify", "build", "--linux=/run/linux", "--initrd=/run/initrd", f"--cmdline={line}"),
                *("--os-release=@/run/os-release", f"--uname={kernel.version}", f"--efi-arch={self._efi()}"),
                *(f"--stub=/usr/lib/systemd/boot/efi/{self.platform.stub}", f"--output=/run/out/{target.name}"),
            ],
            readable={
                kernel.image: "/run/linux",
                kernel.initrd: "/run/initrd",
                root / "usr" / "lib" / "os-release": "/run/os-release",
            },
        )
        return target

    def esp(self, root: Path, kernel: Path) -> Path:
        """Make the boot partition with systemd-boot and the kernel.

        The boot loader is the image's own, so that the one it updates to is of the same kind.
        """
        tree = self.folder / "esp"
        remove(tree)
        loader = root / "usr" / "lib" / "systemd" / "boot" / "efi" / self.platform.boot_loader_source
        for name in (f"EFI/BOOT/{self.platform.boot_loader}", f"EFI/systemd/{self.platform.boot_loader_source}"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(loader, tree / name)
        (tree / "EFI" / "Linux").mkdir()
        shutil.copyfile(kernel, tree / "EFI" / "Linux" / kernel.name)
        (tree / "loader").mkdir()
        (tree / "loader" / "loader.conf").write_text(_LOADER)
        return self._fat("esp.img", tree, size=ESP_SIZE, label="ROUSE-ESP")

    def config(self) -> Path:
        """Make the partition that people write `rouse.toml` on, with an example and an explanation."""
        tree = self.folder / "config"
        remove(tree)
        shutil.copytree(CONFIG_FILES, tree)
        return self._fat("config.img", tree, size=CONFIG_SIZE, label="ROUSE")

    def var(self, models: Path | None) -> Path:
        """Make the data partition: empty, or with models."""
        tree = self.folder / "var"
        remove(tree)
        tree.mkdir()
        if models is not None:
            target = tree / "lib" / "rouse" / "models"
            target.mkdir(parents=True)
            for path in sorted(models.glob("*.gguf")):
                shutil.copyfile(path, target / path.name)
                (target / path.name).chmod(0o644)
        used = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
        size = max(VAR_MINIMUM, -(-int(used * _FREE_SPACE + VAR_MINIMUM) // MIB) * MIB)
        target = self._fresh("var.ext4")
        self._run(
            [
                *("mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "1", "-L", "var", "-J", "size=32"),
                *("-U", str(self._identity("var")), "-d", "/run/tree"),
                *("-E", f"hash_seed={self._identity('var-seed')},root_owner=0:0,nodiscard"),
                *("/run/out/var.ext4", f"{size // 1024}k"),
            ],
            readable={tree: "/run/tree"},
        )
        remove(tree)
        return target

    def _fat(self, name: str, tree: Path, *, size: int, label: str) -> Path:
        target = self._fresh(name)
        with target.open("wb") as file:
            file.truncate(size)
        serial = identity(name).hex[:8]
        bits = "32" if size >= 256 * MIB else "16"
        script = (
            f"set -eu; mkfs.vfat --invariant -F {bits} -i {serial} -n {label} /run/out/{name} > /dev/null; "
            "cd /run/tree; "
            "find . -mindepth 1 -type d | LC_ALL=C sort | sed 's,^./,::/,' "
            f"| xargs -r mmd -i /run/out/{name}; "
            "find . -type f | LC_ALL=C sort "
            f'| while read -r f; do mcopy -i /run/out/{name} "$f" "::/$f"; done'
        )
        self._run(["sh", "-c", script], readable={tree: "/run/tree"})
        remove(tree)
        return target

    def _run(self, command: list[str], *, readable: dict[Path, str] | None = None) -> None:
        self.tools.run(
            command,
            binds={self.folder: "/run/out"},
            readable=readable,
            env={"SOURCE_DATE_EPOCH": str(self.epoch), "MTOOLS_SKIP_CHECK": "1"},
        )

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        remove(path)
        return path

    def _identity(self, name: str) -> uuid.UUID:
        return identity(f"{name} {self.version}")

    def _salt(self) -> str:
        return self._identity("salt").hex * 2

    def _efi(self) -> str:
        return {"amd64": "x64", "arm64": "aa64"}[self.platform.architecture]


def _fits(path: Path, size: int, what: str) -> Path:
    """Return the file.

    Raises:
        ImageError: it is larger than its partition.
    """
    found = path.stat().st_size
    if found > size:
        raise ImageError(
            f"{what} takes {found / MIB:.0f} MiB and its partition has {size / MIB:.0f} MiB; leave something out"
        )
    return path
