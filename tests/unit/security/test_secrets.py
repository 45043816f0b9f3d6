import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance import durable_files
from appliance.security.layout import secret_file
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


def test_a_shared_folder_shares_what_is_made_in_it_with_its_group(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2770)
    ensure_secret(tmp_path / "shared" / "expert.key")
    assert stat.S_IMODE((tmp_path / "shared" / "expert.key").stat().st_mode) == 0o640


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_what_root_makes_belongs_to_whom_the_folder_belongs(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir(mode=0o700)
    os.chown(folder, 4711, 4712)
    ensure_secret(folder / "gateway.key")
    durable_files.write(folder / "more", b"more", mode=0o600)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()} == {(4711, 4712)}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_each_secret_has_its_audience(tmp_path: Path) -> None:
    assert secret_file(tmp_path, "gateway.key") == tmp_path / "secrets/hub/gateway.key"
    assert secret_file(tmp_path, "broker-homeassistant.password").parent.name == "hub"
    assert secret_file(tmp_path, "broker-rouse.password").parent.name == "bus"
    assert secret_file(tmp_path, "expert.key").parent.name == "experts"
    assert secret_file(tmp_path, "metrics.key").parent.name == "node"
    assert secret_file(tmp_path, "nobody-knows-it.key").parent.name == "hub"
