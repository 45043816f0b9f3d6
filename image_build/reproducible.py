"""Builds twice, from the same inputs and nothing kept of the first time, and compares byte for byte.

Usage: python -m image_build.reproducible [--wheels]

Package files and downloaded wheels are kept, as they are inputs with a hash. With --wheels llama.cpp is compiled twice
too, which takes its time.
"""

import argparse
import hashlib
import json
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from appliance import __version__
from image_build.build import Build, Inputs
from image_build.cache import remove
from image_build.errors import ImageError
from image_build.process import Runner
from image_build.source import checkout, source_epoch

_INPUTS = ("debs", "wheels-*", "llama-source-*")
_COMPILED = ("llama-wheel-*",)
_SHOWN = 40
"""Differences that are listed."""


def main() -> int:
    """Run both builds; return 0 if they are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", action="store_true", help="compile llama.cpp twice as well")
    parser.add_argument("--work", type=Path, default=Path("build/image"), help="folder with the caches")
    arguments = parser.parse_args()
    try:
        differences = build_twice(arguments.work.resolve(), compile_wheels=arguments.wheels)
    except ImageError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program for people
        return 1
    for line in differences[:_SHOWN]:
        print(line)  # noqa: T201 - a program for people
    print("The two builds are the same." if not differences else f"{len(differences)} differences.")  # noqa: T201
    return 1 if differences else 0


def build_twice(work: Path, *, compile_wheels: bool) -> list[str]:
    """Build in two folders of their own; return what differs, in words.

    Raises:
        ImageError: a build fails.
    """
    top = checkout()
    inputs = Inputs(top, __version__, "amd64", source_epoch(top, None))
    folders = []
    for name in ("first", "second"):
        folder = work / "reproducible" / name
        remove(folder)
        _take_inputs(work / "cache", folder / "cache", _INPUTS if compile_wheels else (*_INPUTS, *_COMPILED))
        runner = Runner(folder / "log" / "build.log", on_line=lambda _: None)
        build = Build(replace(inputs), work=folder, output=folder / "out", runner=runner, on_step=partial(_say, name))
        build.make()
        print(json.dumps(build.seconds))  # noqa: T201 - a program for people
        folders.append(folder)
    first, second = folders
    found = compare(first / "out", second / "out")
    if found:
        found += compare(first / "parts", second / "parts")
        found += compare(first / "root", second / "root")
    return found


def compare(first: Path, second: Path) -> list[str]:
    """Return how two folders differ: names, kinds, modes, owners, links and contents."""
    here, there = _described(first), _described(second)
    lines = [f"only in {first}: {name}" for name in sorted(here.keys() - there.keys())]
    lines += [f"only in {second}: {name}" for name in sorted(there.keys() - here.keys())]
    for name in sorted(here.keys() & there.keys()):
        if here[name] != there[name]:
            lines.append(f"{name}: {here[name]} and {there[name]}{_where(first / name, second / name)}")
    return lines


def _described(folder: Path) -> dict[str, str]:
    return dict(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        owner = f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
        if path.is_symlink():
            content = f"-> {path.readlink()}"
        elif path.is_file():
            with path.open("rb") as file:
                content = f"{found.st_size} bytes, {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
        else:
            content = ""
        yield str(path.relative_to(folder)), f"{owner} {content}".strip()


def _where(first: Path, second: Path) -> str:
    """Say where two files begin to differ, with the bytes there."""
    if not (first.is_file() and second.is_file()) or first.is_symlink() or second.is_symlink():
        return ""
    offset = 0
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            here, there = one.read(1 << 16), other.read(1 << 16)
            if here == there:
                if not here:
                    return ""
                offset += len(here)
                continue
            length = min(len(here), len(there))
            at = next((index for index in range(length) if here[index] != there[index]), length)
            return f"; from byte {offset + at}: {here[at : at + 16]!r} and {there[at : at + 16]!r}"


def _take_inputs(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    """Give a build its own copy of what has a hash; the bytes are shared by hard links."""
    target.mkdir(parents=True)
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, target / path.name, copy_function=_link)
            elif path.suffix == ".complete":
                shutil.copyfile(path, target / path.name)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _say(name: str, step: str) -> None:
    print(f"{time.strftime('%X')} {name}: {step}", flush=True)  # noqa: T201 - a program for people


if __name__ == "__main__":
    sys.exit(main())
