import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_build.errors import ImageError
from image_build.packages import SUITE
from tests.deploys.house import House
from tests.deploys.roots import copy_of, debian_root

_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def can_make_roots() -> None:
    """Skip where root file systems can't be made."""
    _skip_unless_possible()


@pytest.fixture(scope="session")
def debian() -> Path:
    """A root of Debian that nobody may write to."""
    return root_of(SUITE)


def root_of(suite: str) -> Path:
    """Return a root of a version of Debian, or skip where none can be made."""
    _skip_unless_possible()
    try:
        return debian_root(suite=suite)
    except ImageError as error:
        pytest.skip(str(error))


def _skip_unless_possible() -> None:
    if os.geteuid() != 0:
        pytest.skip("root file systems are made and changed by root")
    missing = [name for name in ("mmdebstrap", "unshare", "ssh-keygen", "openssl", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def root(debian: Path) -> Iterator[Path]:
    """A copy of it for the tests of one file."""
    with copy_of(debian) as folder:
        yield folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A configuration folder."""
    return House(tmp_path_factory.mktemp("house") / "config")
