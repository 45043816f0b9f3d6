"""The program: a virtual environment of Python, made of a folder of wheels, with a link that changes in one step.

The folder is made by `rouse image wheelhouse`; its `requirements.txt` names every wheel by hash. The environment before
stays, so that going back is one link. An image brings its own.
"""

import hashlib
import tarfile
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, override

from pyinfra import host
from pyinfra.api import FactBase, FileUploadCommand, QuoteString, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.facts.files import File, Link

from pyinfra_deploys import packages
from pyinfra_deploys.appliance.layout import PROGRAM, PROGRAM_FOLDER
from pyinfra_deploys.errors import DeployError

LIST = "requirements.txt"
_OLDEST_PYTHON = (3, 13)
_CACHE = "/var/cache/rouse"
# Arguments: the environment's folder, and the folder of wheels.
_INSTALL = """
set -eu; umask 022; new=$1 wheels=$2
trap 'rm -rf "$wheels" "$wheels.tar"' EXIT
rm -rf "$new" "$wheels"; mkdir -p "$wheels"; tar -xf "$wheels.tar" -C "$wheels" --no-same-owner
python3 -m venv "$new"
"$new/bin/pip" install --quiet --no-index --no-deps --no-cache-dir --disable-pip-version-check \\
  --root-user-action=ignore --require-hashes --find-links "$wheels" -r "$wheels/requirements.txt"
[ -x "$new/bin/rouse" ] || { echo "these wheels have no program rouse" >&2; exit 1; }
sync "$new"; touch "$new/.complete"
"""
# Arguments: the environment's folder, and the link to it.
_SWITCH = """
set -eu; new=$1 link=$2
old=$(readlink "$link" || true)
if [ -z "$old" ]; then rm -rf "$link"; fi
ln -sfnT "${new##*/}" "$link.new"; mv -fT "$link.new" "$link"
for other in "$link"-*; do
  case ${other##*/} in "${new##*/}" | "$old") ;; *) rm -rf "$other" ;; esac
done
"""


class PythonVersion(FactBase[tuple[int, int]]):
    """The version of the system's Python."""

    @override
    def command(self) -> str:
        return "python3 -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null || echo 0 0"

    @override
    def process(self, output: list[str]) -> tuple[int, int]:
        major, minor = output[0].split()
        return int(major), int(minor)


def installed(wheelhouse: Path | None) -> list[object]:
    """Have the program; return the operations that may change it.

    Raises:
        DeployError: it is not there and there are no wheels, or they can't be used.
    """
    if wheelhouse is None:
        # A link whose target lies outside of what a fact may follow is a program as well.
        if host.get_fact(File, path=f"{PROGRAM_FOLDER}/bin/rouse") is None:
            raise DeployError(
                "Rouse is not installed: make a folder of wheels with `rouse image wheelhouse FOLDER` in a checkout, "
                "and name it in deploy.wheelhouse"
            )
        return []
    packages.installed("libgomp1", "python3", "python3-venv")
    digest = _digest(wheelhouse)
    made = environment(name="Install Rouse", wheelhouse=str(wheelhouse), digest=digest)
    return [made, linked(name=f"Link {PROGRAM}")]


def _digest(wheelhouse: Path) -> str:
    """Return what names this list of wheels.

    Raises:
        DeployError: there is none.
    """
    try:
        return hashlib.sha256((wheelhouse / LIST).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise DeployError(
            f"deploy.wheelhouse: {wheelhouse / LIST} can't be read ({error.strerror}); "
            "`rouse image wheelhouse FOLDER` makes such a folder"
        ) from error


@operation()
def environment(wheelhouse: str, digest: str) -> Generator[PyinfraCommand]:
    """Have the environment of these wheels, and use it."""
    link = host.get_fact(Link, path=PROGRAM_FOLDER)
    new = f"{PROGRAM_FOLDER}-{digest}"
    if link and link["link_target"] == new.rpartition("/")[2]:
        return
    if (found := host.get_fact(PythonVersion)) != (0, 0) and found < _OLDEST_PYTHON:
        raise DeployError(f"Python {found[0]}.{found[1]} is too old: Rouse runs on Debian 13 (trixie) or newer")
    if host.get_fact(File, path=f"{new}/.complete") is None:
        wheels = f"{_CACHE}/wheels-{digest}"
        yield StringCommand("mkdir", "-p", "-m", "700", _CACHE)
        yield FileUploadCommand(_packed(Path(wheelhouse)), f"{wheels}.tar")
        yield StringCommand("sh", "-c", QuoteString(_INSTALL), "sh", new, wheels)
    yield StringCommand("sh", "-c", QuoteString(_SWITCH), "sh", new, PROGRAM_FOLDER)


def _packed(folder: Path) -> IO[bytes]:
    archive = tempfile.TemporaryFile()  # noqa: SIM115 - pyinfra reads it later
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted([folder / LIST, *folder.glob("*.whl")]):
            tar.add(path, arcname=path.name)
    archive.seek(0)
    return archive


@operation()
def linked() -> Generator[StringCommand]:
    """Have the command on everybody's path."""
    target = f"../lib/{PROGRAM_FOLDER.rpartition('/')[2]}/bin/rouse"
    found = host.get_fact(Link, path=PROGRAM)
    if not found or found["link_target"] != target:
        yield StringCommand("ln", "-sfn", target, PROGRAM)
