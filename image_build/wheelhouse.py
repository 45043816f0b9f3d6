"""The wheels of the appliance.

What is locked is downloaded by hash; what has no wheel is built in a root of the image's Debian, with the image's
Python, compiler and C library.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from image_build.cache import Cache, key_of, remove
from image_build.errors import StepError
from image_build.layout import Architecture
from image_build.process import Runner
from image_build.sandbox import Sandbox

LLAMA_OPTIONS = (
    "-DGGML_RPC=ON",
    "-DCMAKE_PROJECT_llama.cpp_INCLUDE=/run/llama.cpp/without-common.cmake",
    "-DCMAKE_INSTALL_BINDIR=llama_cpp/lib",
    "-DCMAKE_INSTALL_LIBDIR=llama_cpp/lib",
    "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
)
"""As in scripts/setup; docs/decisions/llama-cpp-build.md says why so."""

_BUILD = """
set -eu
python3 -m venv /tmp/tools
/tmp/tools/bin/pip install -q --no-index --find-links /run/tools --no-deps --require-hashes -r /run/build.txt
export PATH=/tmp/tools/bin:$PATH
mkdir /tmp/source
case $(ls /run/source) in
  *.tar.gz) tar -xzf /run/source/*.tar.gz -C /tmp/source --strip-components=1 --no-same-owner ;;
  *) cp -r /run/source/*/. /tmp/source ;;
esac
nice -n 10 pip wheel -v --no-index --no-deps --no-build-isolation --no-cache-dir -w /run/wheels /tmp/source
"""
_PYTHON_VERSION = "3.13"
_NEWEST_C_LIBRARY = 41
"""Minor version of trixie's glibc; wheels for this one and older ones run."""
_MACHINES: dict[Architecture, str] = {"amd64": "x86_64", "arm64": "aarch64"}
_SOURCES = ("appliance", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True)
class Wheelhouse:
    """Folders of wheels.

    Attributes:
        locked: downloaded, as `requirements` lists them with their hashes.
        built: built here: llama-cpp-python and Rouse itself.
        requirements: the list of what is locked.
    """

    locked: Path
    built: tuple[Path, ...]
    requirements: Path


@dataclass(frozen=True, slots=True)
class WheelBuild:
    """Makes the wheelhouse.

    Attributes:
        top: the checkout.
        cache: where slow results are kept.
        builder: root with compiler and Python.
        builder_key: names what is in that root.
        runner: runs programs of the machine.
        epoch: time stamp of Rouse itself, in seconds since 1970.
        builder_epoch: time stamp of what is built of locked sources.
        architecture: the image's.
    """

    top: Path
    cache: Cache
    builder: Sandbox
    builder_key: str
    runner: Runner
    epoch: int
    builder_epoch: int
    architecture: Architecture

    def make(self) -> Wheelhouse:
        """Download and build what is missing.

        Raises:
            StepError: a download or a build fails.
        """
        requirements = self.top / "requirements" / "appliance.txt"
        locked, _ = self.cache.get("wheels", key_of(requirements, self.architecture), self._download(requirements))
        tools_list = self.top / "requirements" / "build.txt"
        tools, _ = self.cache.get("wheels-build", key_of(tools_list, self.architecture), self._download(tools_list))
        return Wheelhouse(locked, (self._llama(tools), self._rouse(tools)), requirements)

    def _download(self, requirements: Path) -> "_Download":
        return _Download(self.top, self.runner, requirements, self.architecture)

    def _llama(self, tools: Path) -> Path:
        requirements = self.top / "requirements" / "llama-cpp-python.txt"
        patches = self.top / "scripts" / "llama.cpp"
        key = key_of(requirements, patches, LLAMA_OPTIONS, self.architecture)
        source, _ = self.cache.get("llama-source", key_of(requirements), self._download(requirements))
        archive = next(source.glob("llama_cpp_python-*.tar.gz"))

        def build(folder: Path) -> None:
            self._build_wheel(folder, tools, archive, self.builder_epoch)

        return self.cache.get("llama-wheel", key_of(key, self.builder_key), build)[0]

    def _rouse(self, tools: Path) -> Path:
        files = tracked(self.top, _SOURCES)
        key = key_of([str(path) for path in files], *(self.top / path for path in files), self.epoch)

        def build(folder: Path) -> None:
            copied = folder.with_name(folder.name + ".source")
            remove(copied)
            for path in files:
                target = copied / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((self.top / path).read_bytes())
            self._build_wheel(folder, tools, copied, self.epoch)
            remove(copied)

        return self.cache.get("rouse-wheel", key, build)[0]

    def _build_wheel(self, folder: Path, tools: Path, source: Path, epoch: int) -> None:
        """Build a wheel of a source archive or a project's folder, in the builder and without network."""
        folder.mkdir(parents=True)
        self.builder.run(
            ["sh", "-c", _BUILD],
            binds={folder: "/run/wheels"},
            readable={
                tools: "/run/tools",
                self.top / "requirements" / "build.txt": "/run/build.txt",
                self.top / "scripts" / "llama.cpp": "/run/llama.cpp",
                source: f"/run/source/{source.name}",
            },
            env={
                # The same folders every time: assertions hold file names.
                "SKBUILD_BUILD_DIR": "/tmp/build",  # noqa: S108 - the root's own
                "CMAKE_ARGS": " ".join(LLAMA_OPTIONS),
                "CFLAGS": "-ffile-prefix-map=/tmp/=/",
                "CXXFLAGS": "-ffile-prefix-map=/tmp/=/",
                "SOURCE_DATE_EPOCH": str(epoch),
                "PYTHONHASHSEED": "0",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            },
        )


@dataclass(frozen=True, slots=True)
class _Download:
    """Downloads what a list names by hash, for the image's Python and C library, with the machine's set-up of pip."""

    top: Path
    runner: Runner
    requirements: Path
    architecture: Architecture

    def __call__(self, folder: Path) -> None:
        machine = _MACHINES[self.architecture]
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_NEWEST_C_LIBRARY, 4, -1)]
        platforms = [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]
        tools = Path(self.runner.output([str(self.top / "scripts" / "tools")]).strip())
        self.runner.run(
            [
                str(tools / "python"),
                *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"),
                *("--implementation", "cp", "--python-version", _PYTHON_VERSION, "--abi", "cp313", "--abi", "abi3"),
                *("--abi", "none"),
                *(part for platform in platforms for part in ("--platform", platform)),
                *("--dest", str(folder), "-r", str(self.requirements)),
            ]
        )


def tracked(top: Path, names: Sequence[str]) -> list[Path]:
    """Return the files below these names that git knows, relative to the checkout.

    Raises:
        StepError: this is no checkout.
    """
    found = subprocess.run(
        ["git", "-C", str(top), "ls-files", "-z", "--", *names], check=False, capture_output=True, text=True
    )
    if found.returncode != 0:
        raise StepError(f"{top} is no git checkout, and what the appliance consists of is read from it: {found.stderr}")
    return sorted(path for path in map(Path, found.stdout.split("\0")) if path.name and (top / path).is_file())
