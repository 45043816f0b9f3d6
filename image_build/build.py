"""The whole build, step by step."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from image_build import packages
from image_build.cache import Cache, remove
from image_build.converge import converge
from image_build.debian import Debian
from image_build.disk import make_disk
from image_build.errors import ImageError
from image_build.finish import finish, name_version, stamp
from image_build.initrd import Kernel, make_initrd
from image_build.layout import PLATFORMS, Architecture, Artifacts, Platform, check_version, split_root_hash
from image_build.lock import PackageLock
from image_build.oci import make_oci
from image_build.pack import QUICK_EROFS_OPTIONS, Contents, Packer
from image_build.process import Runner
from image_build.root import RootBuild
from image_build.sandbox import Sandbox
from image_build.sbom import make_sbom
from image_build.signing import write_checksums
from image_build.wheelhouse import WheelBuild, Wheelhouse

type OnStep = Callable[[str], None]

LOCK_NAME = "packages.{architecture}.lock"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a build is made of.

    Attributes:
        top: the checkout.
        version: of the image.
        architecture: of the image.
        epoch: time stamp of everything, in seconds since 1970.
        models: folder of models (GGUF) that go onto the data partition.
        verify_key: public keys that a machine accepts updates of.
    """

    top: Path
    version: str
    architecture: Architecture
    epoch: int
    models: Path | None = None
    verify_key: Path | None = None


class Build:
    """One build of the image.

    Args:
        inputs: what it is made of.
        work: folder for everything; its `cache` is worth keeping.
        output: folder for what is published.
        runner: runs programs.
        on_step: gets the name of each step when it begins.
    """

    def __init__(self, inputs: Inputs, *, work: Path, output: Path, runner: Runner, on_step: OnStep) -> None:
        try:
            check_version(inputs.version)
        except ValueError as error:
            raise ImageError(str(error)) from error
        self.inputs = inputs
        self.output = output
        self.seconds: dict[str, float] = {}
        self._work = work
        self._runner = runner
        self._on_step = on_step
        self._cache = Cache(work / "cache")
        self._platform: Platform = PLATFORMS[inputs.architecture]
        lock = inputs.top / "image_build" / LOCK_NAME.format(architecture=inputs.architecture)
        self._debian = Debian(inputs.architecture, self._cache, PackageLock(lock), runner)
        self._artifacts = Artifacts(inputs.version, inputs.architecture)

    def lock(self) -> None:
        """Take the mirror's newest packages into the lock file.

        Raises:
            ImageError: they can't be had.
        """
        for name, wanted in self._wanted().items():
            with self._step(f"Packages for {name}"):
                self._debian.resolve(name, wanted, self.inputs.epoch)

    def tools(self) -> Sandbox:
        """Return the root with the programs that pack, sign and boot."""
        folder, _ = self._debian.root("tools", self._wanted()["tools"])
        return Sandbox(folder, self._runner)

    def make(self) -> Path:
        """Build everything; return the folder of what is published.

        Raises:
            ImageError: a step fails.
        """
        if os.geteuid() != 0:
            raise ImageError("an image's files belong to several users, so it is built as root: try it with sudo")
        started = time.monotonic()
        with self._step("Tools"):
            tools = self.tools()
        with self._step("Debian"):
            debian, _ = self._debian.root("appliance", self._wanted()["appliance"])
            builder, _ = self._debian.root("builder", self._wanted()["builder"])
            early, _ = self._debian.root("initrd", self._wanted()["initrd"])
        with self._step("Initial RAM disk"):
            kernel = self._kernel(early)
        wheelhouse = self._wheelhouse(builder)
        with self._step("Root file system"):
            build = RootBuild(debian, builder, wheelhouse, self._runner, self.inputs.epoch)
            sandbox = build.copy(self._work / "root")
            build.install(sandbox)
            build.add_files(sandbox)
        with self._step("Deploys"):
            converge(sandbox.root, top=self.inputs.top, runner=self._runner)
        with self._step("Finish"):
            self._add_key(sandbox.root)
            finish(sandbox, version=self.inputs.version, epoch=self.inputs.epoch)
        with self._step("Partitions"):
            contents = self._packer(tools).pack(sandbox.root, kernel, self.inputs.models)
        self._publish(contents, sandbox.root, tools)
        self.seconds["total"] = round(time.monotonic() - started, 1)
        (self._work / "seconds.json").write_text(json.dumps(self.seconds, indent=1) + "\n")
        return self.output

    def repack(self, change: Callable[[Path], None] = lambda _: None) -> Path:
        """Pack the last build's root once more under this version: only what updates need, for trying them.

        Args:
            change: may change the copy of the root.

        Raises:
            ImageError: there was no build, or a step fails.
        """
        last = self._work / "root"
        if not (last / "usr" / "lib" / "os-release").is_file():
            raise ImageError(f"there is no root of an earlier build in {last}: run `rouse image build` first")
        with self._step("Tools"):
            tools = self.tools()
            early, _ = self._debian.root("initrd", self._wanted()["initrd"])
            kernel = self._kernel(early)
        with self._step("Root file system"):
            root = self._work / "repacked"
            remove(root)
            self._runner.run(["cp", "-a", "--reflink=auto", str(last), str(root)])
            name_version(root, self.inputs.version)
            change(root)
            self._add_key(root)
            stamp(root, self.inputs.epoch)
        with self._step("Partitions"):
            packer = replace(self._packer(tools), compression=QUICK_EROFS_OPTIONS)
            packed = packer.root(root)
            verity, root_hash = packer.verity(packed)
            linux = packer.kernel(root, kernel, root_hash)
        remove(self.output)
        self.output.mkdir(parents=True)
        self._copy_for_updates(packed, verity, linux, root_hash)
        self._write_manifest(root_hash, 0)
        write_checksums(self.output)
        remove(root)
        return self.output

    def _kernel(self, early: Path) -> Kernel:
        return make_initrd(
            Sandbox(early, self._runner),
            cache=self._cache,
            root_key=self._debian.root_key("initrd"),
            epoch=self._debian.lock.epoch,
        )

    def _write_manifest(self, root_hash: str, var_size: int) -> None:
        manifest = {
            "version": self.inputs.version,
            "architecture": self.inputs.architecture,
            "root_hash": root_hash,
            "source_date_epoch": self.inputs.epoch,
            "var_size": var_size,
        }
        (self.output / self._artifacts.manifest).write_text(json.dumps(manifest, indent=1) + "\n")

    def _copy_for_updates(self, root: Path, verity: Path, kernel: Path, root_hash: str) -> None:
        root_id, verity_id = split_root_hash(root_hash)
        # The root is compressed as it is, so it is published as it is written to a slot.
        shutil.copyfile(root, self.output / self._artifacts.root(root_id))
        shutil.copyfile(verity, self.output / self._artifacts.verity(verity_id))
        shutil.copyfile(kernel, self.output / self._artifacts.kernel)

    def wheelhouse(self) -> Wheelhouse:
        """Make the wheels alone.

        Raises:
            ImageError: a step fails.
        """
        with self._step("Debian"):
            builder, _ = self._debian.root("builder", self._wanted()["builder"])
        return self._wheelhouse(builder)

    def _wheelhouse(self, builder: Path) -> Wheelhouse:
        with self._step("Wheels"):
            return WheelBuild(
                self.inputs.top,
                self._cache,
                Sandbox(builder, self._runner),
                self._debian.root_key("builder"),
                self._runner,
                self.inputs.epoch,
                self._debian.lock.epoch,
                self.inputs.architecture,
            ).make()

    def _wanted(self) -> dict[str, tuple[str, ...]]:
        return {
            "appliance": packages.appliance(self._platform),
            "builder": packages.builder(),
            "initrd": packages.initrd(self._platform),
            "tools": packages.tools(self._platform),
        }

    def _packer(self, tools: Sandbox) -> Packer:
        folder = self._work / "parts"
        return Packer(tools, self._runner, folder, self._platform, self.inputs.version, self.inputs.epoch)

    def _add_key(self, root: Path) -> None:
        """Put in the keys that updates are verified with (systemd-sysupdate's place for them)."""
        if self.inputs.verify_key is not None:
            shutil.copyfile(self.inputs.verify_key, root / "usr" / "lib" / "systemd" / "import-pubring.pgp")

    def _publish(self, contents: Contents, root: Path, tools: Sandbox) -> None:
        """Write what is published."""
        names = self._artifacts
        remove(self.output)
        self.output.mkdir(parents=True)
        disk = self._work / "disk.raw"
        with self._step("Disk image"):
            make_disk(contents, disk, platform=self._platform, version=self.inputs.version, tools=tools)
            # Two threads on every machine: with another number zstd writes other bytes.
            self._pack(tools, disk, names.disk, "zstd -q -T2 -12 --long=27 -c /run/source > /run/out/{}")
        with self._step("Files for updates"):
            self._copy_for_updates(contents.root, contents.verity, contents.kernel, contents.root_hash)
        with self._step("Bill of materials"):
            make_sbom(
                root,
                self.output / names.sbom,
                version=self.inputs.version,
                epoch=self.inputs.epoch,
                models=self.inputs.models,
            )
        with self._step("OCI image"):
            make_oci(
                root,
                self.output / names.oci,
                version=self.inputs.version,
                architecture=self.inputs.architecture,
                epoch=self.inputs.epoch,
            )
        self._write_manifest(contents.root_hash, contents.var.stat().st_size)
        write_checksums(self.output)

    def _pack(self, tools: Sandbox, source: Path, name: str, command: str) -> None:
        tools.run(["sh", "-c", command.format(name)], binds={self.output: "/run/out"}, readable={source: "/run/source"})

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._on_step(name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
