from pathlib import Path

import pytest

from image_build.errors import LockError
from image_build.layout import PLATFORMS
from image_build.lock import LockedPackage, PackageLock, read_debs
from image_build.packages import appliance, builder, initrd, tools
from image_build.source import checkout

PACKAGE = LockedPackage(name="dash", version="0.5.12-12", architecture="amd64", sha256="0" * 64)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "packages.lock"
    PackageLock(path).replace("tools", ["dash"], {PACKAGE: tmp_path}, 42)
    lock = PackageLock(path)
    assert lock.packages("tools") == (PACKAGE,)
    assert lock.epoch == 42
    lock.check_wanted("tools", ["dash"])


def test_one_package_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "packages.lock"
    PackageLock(path).replace("tools", ["dash"], {PACKAGE: tmp_path}, 42)
    assert PACKAGE.model_dump_json() in path.read_text().splitlines()


def test_another_list_of_packages_is_named(tmp_path: Path) -> None:
    lock = PackageLock(tmp_path / "packages.lock")
    lock.replace("tools", ["dash"], {PACKAGE: tmp_path}, 42)
    with pytest.raises(LockError, match=r"\+bash -dash"):
        lock.check_wanted("tools", ["bash"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"roots": {"tools": 1}}', '{"other": 1}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "packages.lock"
    path.write_text(text)
    with pytest.raises(LockError, match="rouse image lock"):
        PackageLock(path)


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="'tools'"):
        PackageLock(tmp_path / "packages.lock").packages("tools")


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_text("no package")
    with pytest.raises(LockError, match="is no Debian package"):
        read_debs(tmp_path)


def test_the_lock_file_is_up_to_date_and_names_no_host() -> None:
    path = checkout() / "image_build" / "packages.amd64.lock"
    lock, platform = PackageLock(path), PLATFORMS["amd64"]
    wanted = {
        "appliance": appliance(platform),
        "builder": builder(),
        "initrd": initrd(platform),
        "tools": tools(platform),
    }
    for root, names in wanted.items():
        lock.check_wanted(root, names)
    assert "://" not in path.read_text()


def test_initrd_and_image_have_the_same_kernel() -> None:
    lock = PackageLock(checkout() / "image_build" / "packages.amd64.lock")
    kernels = [
        {(p.name, p.sha256) for p in lock.packages(root) if p.name.startswith("linux-image")}
        for root in ("appliance", "initrd")
    ]
    assert kernels[0] == kernels[1] != set()
