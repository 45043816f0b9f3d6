"""Makes root file systems of Debian with mmdebstrap, from exactly the packages that the lock file names.

The mirror is the one that the machine's apt is set up with. Packages are kept by their hash, so that a locked build
can be repeated when the mirror has moved on. A package that neither the store nor the mirror has is an error.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from image_build.cache import Cache, key_of, remove
from image_build.errors import ImageError, LockError, StepError
from image_build.layout import Architecture
from image_build.lock import LockedPackage, PackageLock, read_debs
from image_build.packages import COMPONENTS, SUITE
from image_build.process import Runner

_KEYRING_NAMES = ("debian-archive-keyring.pgp", "debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where Debian's packages come from."""

    archive: str
    security: str | None
    keyring: Path

    def sources(self) -> list[str]:
        """Return the lines of a sources.list."""
        components = " ".join(COMPONENTS)
        signed = f"[signed-by={self.keyring}]"
        lines = [f"deb {signed} {self.archive} {suite} {components}" for suite in (SUITE, f"{SUITE}-updates")]
        if self.security is not None:
            lines.append(f"deb {signed} {self.security} {SUITE}-security {components}")
        return lines


def find_mirror(runner: Runner) -> Mirror:
    """Return the mirror that this machine's apt uses.

    Raises:
        ImageError: it uses none of Debian's, or its keys are missing.
    """
    try:
        listed = runner.output(["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"])
    except StepError as error:
        raise ImageError(f"the image is built from Debian's packages, and this machine has no apt: {error}") from error
    found: dict[str, str] = {}
    for label, _, uri in (line.partition(" ") for line in listed.splitlines()):
        found.setdefault(label, uri)
    keyring = next((path for name in _KEYRING_NAMES if (path := Path("/usr/share/keyrings") / name).exists()), None)
    if "Debian" not in found or keyring is None:
        raise ImageError("this machine's apt has no Debian mirror or no debian-archive-keyring (try apt-get update)")
    return Mirror(found["Debian"], found.get("Debian-Security"), keyring)


@dataclass(frozen=True, slots=True)
class Debian:
    """Makes roots.

    Attributes:
        architecture: of the packages.
        cache: where finished roots are kept, and the packages.
        lock: versions and hashes.
        runner: runs mmdebstrap and apt.
    """

    architecture: Architecture
    cache: Cache
    lock: PackageLock
    runner: Runner

    @property
    def store(self) -> Path:
        """Folder of package files, named by their hashes."""
        return self.cache.folder / "debs"

    def root_key(self, name: str) -> str:
        """Return what names the contents of a root of the lock file."""
        return key_of(self.architecture, self.lock.epoch, [package.sha256 for package in self.lock.packages(name)])

    def root(self, name: str, wanted: Sequence[str]) -> tuple[Path, bool]:
        """Return a root with the locked packages, and whether it was there; nobody may write to it.

        Raises:
            LockError: the lock file is for other packages, or some can't be had.
            StepError: the root can't be made.
        """
        self.lock.check_wanted(name, wanted)
        return self.cache.get(f"root-{name}", self.root_key(name), lambda folder: self._make_locked(name, folder))

    def resolve(self, name: str, wanted: Sequence[str], epoch: int) -> None:
        """Take the mirror's newest packages into the lock, as of this time.

        Raises:
            StepError: they can't be downloaded or don't go together.
        """
        apt = self._apt()
        # As mmdebstrap's variant "minbase" has it.
        whole = ["apt", "?essential", "?and(?priority(required),?not(?essential))", *wanted]
        self.runner.run([*apt, "-o", "APT::Install-Recommends=false", "install", "-y", "--download-only", *whole])
        archives = self._apt_state / "cache" / "archives"
        self.lock.replace(name, wanted, read_debs(archives), epoch)
        self._keep(archives)

    def _make_locked(self, name: str, folder: Path) -> None:
        packages = self.lock.packages(name)
        repository = self.cache.folder / f"repository-{name}"
        remove(repository)
        repository.mkdir(parents=True)
        try:
            self._fetch(packages)
            entries = []
            for package in packages:
                file = repository / f"{package.sha256}.deb"
                file.hardlink_to(self.store / file.name)
                control = self.runner.output(["dpkg-deb", "--field", str(file)]).rstrip("\n")
                size = file.stat().st_size
                entries.append(f"{control}\nFilename: ./{file.name}\nSize: {size}\nSHA256: {package.sha256}\n")
            _write_index(repository, "\n".join(entries).encode())
            source = f"deb [trusted=yes] copy:{repository} ./"
            self._mmdebstrap([package.name for package in packages], folder, [source])
        finally:
            remove(repository)

    def _mmdebstrap(self, include: Sequence[str], folder: Path, sources: Sequence[str]) -> None:
        # What it mounts is gone when it ends, however that comes about.
        command = ["unshare", "--mount", "--propagation=private", "--"]
        command += ["mmdebstrap", "--variant=minbase", f"--architectures={self.architecture}", "--format=directory"]
        # Documentation is of no use on an appliance, but licences have to go with the programs.
        for excluded in ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*"):
            command.append(f"--dpkgopt=path-exclude={excluded}")
        # The initial RAM disk is made apart, once.
        command.append("--dpkgopt=path-exclude=/etc/kernel/postinst.d/*")
        command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", f"--include={','.join(include)}"]
        command += ['--aptopt=APT::Install-Recommends "false"', SUITE, str(folder), *sources]
        self.runner.run(command, env={"SOURCE_DATE_EPOCH": str(self.lock.epoch)})

    def _keep(self, debs: Path) -> None:
        """Put package files into the store."""
        self.store.mkdir(parents=True, exist_ok=True)
        for package, file in read_debs(debs).items():
            shutil.move(file, self.store / f"{package.sha256}.deb")

    def _fetch(self, packages: Sequence[LockedPackage]) -> None:
        """Download what the store lacks.

        Raises:
            LockError: the mirror has no such version, or something else under its name.
        """
        missing = [package for package in packages if not (self.store / f"{package.sha256}.deb").exists()]
        if not missing:
            return
        apt = self._apt()
        archives = self._apt_state / "download"
        archives.mkdir()
        try:
            self.runner.run([*apt, "download", *(f"{p.name}={p.version}" for p in missing)], cwd=archives)
        except StepError as error:
            raise LockError(
                "the mirror no longer has every package of the lock file; `rouse image lock` takes today's, "
                f"or use the package store of an earlier build ({self.store}). {error}"
            ) from error
        got = {package.sha256 for package in read_debs(archives)}
        wrong = [f"{package.name} {package.version}" for package in missing if package.sha256 not in got]
        if wrong:
            raise LockError(f"the mirror has other contents than the lock file for: {', '.join(wrong)}")
        self._keep(archives)

    @property
    def _apt_state(self) -> Path:
        return self.cache.folder / "apt"

    def _apt(self) -> list[str]:
        """Return the command line of an apt that knows the mirror's packages and none of the machine's own."""
        state = self._apt_state
        remove(state)
        for folder in ("lists/partial", "cache/archives/partial", "dpkg"):
            (state / folder).mkdir(parents=True)
        (state / "dpkg" / "status").touch()
        (state / "sources.list").write_text("\n".join(find_mirror(self.runner).sources()) + "\n")
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": state,
            "Dir::State::status": state / "dpkg/status",
        }
        apt = ["apt-get", "-q", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
        self.runner.run([*apt, "update"])
        return apt


def _write_index(repository: Path, packages: bytes) -> None:
    """Write what makes a folder a repository of the suite, by which mmdebstrap finds the essential packages."""
    (repository / "Packages").write_bytes(packages)
    digest = hashlib.sha256(packages).hexdigest()
    (repository / "Release").write_text(
        f"Suite: {SUITE}\nCodename: {SUITE}\nSHA256:\n {digest} {len(packages)} Packages\n"
    )
