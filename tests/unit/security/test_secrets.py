import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.security.secrets import SecretError, ensure_secret, read_secret


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "gateway.key"
    secret = ensure_secret(path)
    assert len(secret) >= 43
    assert ensure_secret(path) == secret == read_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["gateway.key"]


def test_many_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "gateway.key"
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: ensure_secret(path), range(64)))
    assert len(secrets) == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n", b"\xff\xfe"])
def test_a_useless_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SecretError, match=str(path)):
        ensure_secret(path)


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretError, match="file/key: can't be written"):
        ensure_secret(tmp_path / "file" / "key")
