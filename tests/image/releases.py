"""Versions to update to: the tested image's root, packed again under other names, good and broken, and signed."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from image_build import signing
from image_build.build import Build, Inputs
from image_build.process import Runner
from image_build.source import checkout, source_epoch
from tests.image.conftest import WORK, Image

_BROKEN_PROGRAM = "#!/bin/sh\necho 'this version is broken on purpose' >&2\nexit 1\n"


@dataclass(frozen=True, slots=True)
class Releases:
    """Folders as a publisher has them, and the key that they are signed with."""

    keys: Path
    first: Path
    """The image itself, as files for updates."""
    good: Path
    without_init: Path
    """Its kernel finds no system to start."""
    unhealthy: Path
    """It starts, and Rouse does not."""

    def versions(self, image: Image) -> dict[str, str]:
        """Return the versions by the fields' names."""
        return versions(image)


def versions(image: Image) -> dict[str, str]:
    """Return versions that are newer than the image's, by the fields of `Releases`."""
    names = ("good", "without_init", "unhealthy")
    return {"first": image.version, **{name: f"{image.version}.{number}" for number, name in enumerate(names, 1)}}


def make_releases(image: Image) -> Releases:
    """Make the versions, or take those that were made of the same image."""
    folder = WORK / "test" / f"releases-{image.root_hash[:16]}"
    runner = Runner(WORK / "log" / "releases.log", on_line=lambda _: None)
    keys = folder / "keys.pgp"
    numbers = versions(image)
    changes: dict[str, Callable[[Path], None]] = {
        "good": lambda _: None,
        "without_init": lambda root: (root / "usr/lib/systemd/systemd").unlink(),
        "unhealthy": lambda root: _replace(root / "usr/lib/rouse/bin/rouse", _BROKEN_PROGRAM),
    }
    if not keys.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        epoch = source_epoch(checkout(), None)
        for name, change in changes.items():
            inputs = Inputs(checkout(), numbers[name], image.platform.architecture, epoch)
            Build(inputs, work=WORK, output=folder / name, runner=runner, on_step=lambda _: None).repack(change)
        first = folder / "first"
        first.mkdir()
        for pattern in ("*.root", "*.verity", "*.efi"):
            for path in image.folder.glob(pattern):
                (first / path.name).hardlink_to(path)
        signing.write_checksums(first)
        _sign([first, *(folder / name for name in changes)], keys, runner)
    return Releases(keys=keys, first=folder / "first", **{name: folder / name for name in changes})


def _replace(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)
    path.chmod(0o755)


def _sign(folders: list[Path], keys: Path, runner: Runner) -> None:
    # GnuPG's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="rouse-gpg-") as home:
        command = ["gpg", "--batch", "--homedir", home, "--passphrase", "", "--quick-generate-key"]
        runner.run([*command, "tests@example.org", "ed25519", "sign", "0"])
        for folder in folders:
            signing.sign(folder, runner=runner, key="tests@example.org", home=Path(home))
        # Last: with it, all of this is known to be complete.
        signing.export_key(keys, runner=runner, key="tests@example.org", home=Path(home))
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
