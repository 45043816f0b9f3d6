"""A folder of wheels for Debian's Python, made once with what pip and uv are set up with, and Rouse as it is now.

llama-cpp-python is the wheel that scripts/setup built for this machine, without the variants of the processor that
virtual machines promise and don't have.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from image_build.gathering import gather
from image_build.process import Runner
from image_build.source import checkout
from image_build.wheelhouse import Wheelhouse, _Download
from tests.deploys.roots import FOLDER

_TOP = checkout()


def wheelhouse(folder: Path) -> Path:
    """Return a folder of wheels, made at `folder`."""
    llama = _llama()
    if llama is None:
        pytest.skip("llama-cpp-python was not built here: make setup")
    requirements = _TOP / "requirements" / "appliance.txt"
    with _locked():
        place = FOLDER / f"wheels-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
        if not place.exists():
            new = place.with_name(f"{place.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            runner = Runner(FOLDER / "pip.log", on_line=lambda _: None)
            _Download(_TOP, runner, requirements, "amd64")(new)
            new.rename(place)
    built = folder.with_name(f"{folder.name}.built")
    built.mkdir()
    shutil.copy2(llama, built)
    subprocess.run(
        [_TOP / "scripts" / "uv", "build", "--quiet", "--wheel", "--out-dir", built, _TOP], check=True, cwd=_TOP
    )
    return gather(Wheelhouse(place, (built,), requirements), folder)


def _llama() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rouse"
    found = sorted(cache.glob("llama-cpp-python-*/**/llama_cpp_python-*-linux_x86_64.whl"), key=os.path.getmtime)
    return found[-1] if found else None


@contextmanager
def _locked() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
