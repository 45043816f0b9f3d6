from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from appliance.settings import InvalidSettingsError, LoadedSettings, load

type Load = Callable[..., LoadedSettings]
type Complaints = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file of the configuration folder."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Load the configuration folder for the host `attic`."""

    def load_folder(environ: Mapping[str, str] | None = None, hostname: str = "attic") -> LoadedSettings:
        return load(tmp_path, environ or {}, hostname)

    return load_folder


@pytest.fixture
def complaints(tmp_path: Path, loaded: Load) -> Complaints:
    """Load the configuration folder and return the lines of the error, with file names made relative."""

    def lines(environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(InvalidSettingsError) as caught:
            loaded(environ)
        assert caught.value.__context__ is None
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return lines
