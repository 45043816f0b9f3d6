from pathlib import Path

import pytest

from appliance.updates.errors import InstallError
from appliance.updates.kernels import installed, put_last, remove_leftovers, restart_helps, try_anew


def boot(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"MZ")
    return folder


def test_names_are_versions_and_tries(tmp_path: Path) -> None:
    boot(tmp_path, "rouse_0.9.efi", "rouse_0.10+3-0.efi", "rouse_1.0~rc1+0.efi", "other_2.efi", ".#rouse_3.efi1234")
    found = [(kernel.version, kernel.left) for kernel in installed(tmp_path)]
    assert found == [("1.0~rc1", 0), ("0.10", 3), ("0.9", None)]


def test_a_boot_partition_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="can't be read"):
        installed(tmp_path / "boot")


def test_renaming(tmp_path: Path) -> None:
    newer, older = installed(boot(tmp_path, "rouse_2.efi", "rouse_1.efi"))
    put_last(newer)
    try_anew(older)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rouse_1+3-0.efi", "rouse_2+0.efi"]


def test_leftovers_go(tmp_path: Path) -> None:
    remove_leftovers(boot(tmp_path, ".#sysupdaterouse_2.efi0123", "rouse_1.efi"))
    assert [path.name for path in tmp_path.iterdir()] == ["rouse_1.efi"]


@pytest.mark.parametrize(
    ("names", "running", "helps"),
    [
        (("rouse_1.efi",), "1", False),
        (("rouse_1.efi", "rouse_2+2-1.efi"), "2", True),
        (("rouse_1.efi", "rouse_2+0-3.efi"), "2", True),
        (("rouse_1+0.efi", "rouse_2+0-3.efi"), "2", False),
        (("rouse_1+1-2.efi", "rouse_2+0.efi"), "1", True),
        (("rouse_1+0-3.efi", "rouse_2+0.efi"), "2", False),
        (("rouse_1.efi", "rouse_2+0-3.efi"), "1", False),
        ((), "1", False),
    ],
)
def test_a_restart_helps_only_when_it_leads_elsewhere(
    tmp_path: Path, names: tuple[str, ...], running: str, *, helps: bool
) -> None:
    assert restart_helps(installed(boot(tmp_path, *names)), running) is helps
