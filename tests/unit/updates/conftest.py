from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.updates.image import ImagePaths
from tests.unit.updates.publisher import Publisher, missing_programs


@pytest.fixture(scope="session")
def one_publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} is not installed: apt-get install gpg gpgv")
    publisher = Publisher(tmp_path_factory.mktemp("p"))
    yield publisher
    publisher.close()


@pytest.fixture
def publisher(one_publisher: Publisher) -> Publisher:
    """A publisher that has published nothing."""
    for path in one_publisher.folder.iterdir():
        path.unlink()
    return one_publisher


@pytest.fixture
def paths(tmp_path: Path, publisher: Publisher) -> ImagePaths:
    """A machine that runs version 1.0, which is known to be good."""
    paths = ImagePaths(
        os_release=tmp_path / "os-release",
        keys=(tmp_path / "none.pgp", publisher.keys),
        kernels=tmp_path / "boot",
        own=tmp_path / "own",
        good=tmp_path / "etc",
        staged=tmp_path / "staged",
        healthy=tmp_path / "run" / "healthy",
    )
    paths.os_release.write_text('NAME="Rouse"\nIMAGE_ID=rouse\nIMAGE_VERSION=1.0\n')
    for folder in (paths.kernels, paths.own, paths.staged, paths.good / "1.0"):
        folder.mkdir(parents=True)
    (paths.kernels / "rouse_1.0.efi").write_bytes(b"MZ one")
    (paths.good / "1.0" / "good").touch()
    return paths
