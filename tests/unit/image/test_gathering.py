import hashlib
from pathlib import Path

import pytest

from image_build.errors import StepError
from image_build.gathering import gather
from image_build.wheelhouse import Wheelhouse

LLAMA = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Wheelhouse:
    locked, built = tmp_path / "locked", tmp_path / "built"
    for folder, name in (
        (locked, "attrs-1.0-py3-none-any.whl"),
        (built, "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"),
    ):
        folder.mkdir()
        (folder / name).write_bytes(name.encode())
    requirements = tmp_path / "list.txt"
    requirements.write_text("attrs==1.0 --hash=sha256:0\n")
    return Wheelhouse(locked, (built,), requirements)


def test_the_list_names_what_was_built_by_hash(wheelhouse: Wheelhouse, tmp_path: Path) -> None:
    folder = gather(wheelhouse, tmp_path / "wheels")
    name = LLAMA
    digest = hashlib.sha256(name.encode()).hexdigest()
    assert (folder / "requirements.txt").read_text().splitlines() == [
        "attrs==1.0 --hash=sha256:0",
        f"llama-cpp-python==0.3.36 --hash=sha256:{digest}",
    ]
    assert sorted(path.name for path in folder.glob("*.whl")) == ["attrs-1.0-py3-none-any.whl", name]
    (folder / "old-1.0-py3-none-any.whl").touch()
    gather(wheelhouse, folder)
    assert not (folder / "old-1.0-py3-none-any.whl").exists()


def test_a_folder_of_something_else_is_left_alone(wheelhouse: Wheelhouse, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(StepError, match="something else"):
        gather(wheelhouse, tmp_path / "photos")
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_what_is_no_wheel_is_refused(wheelhouse: Wheelhouse, tmp_path: Path) -> None:
    (wheelhouse.built[0] / "rouse.whl").touch()
    with pytest.raises(StepError, match="no wheel"):
        gather(wheelhouse, tmp_path / "wheels")
