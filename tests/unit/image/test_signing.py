import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_build.errors import SigningError
from image_build.process import Runner
from image_build.signing import CHECKSUMS, SIGNATURE, export_key, sign, verify, verify_checksums, write_checksums

needs_gpg = pytest.mark.skipif(
    shutil.which("gpg") is None or shutil.which("gpgv") is None,
    reason="GnuPG is not installed: apt-get install gpg gpgv",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "disk").write_bytes(b"a disk")
    (folder / "kernel").write_bytes(b"a kernel")
    write_checksums(folder)
    return folder


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "log", on_line=lambda _: None)


@pytest.fixture
def keys() -> Iterator[Path]:
    """GnuPG's folder with a secret key that expires soon."""
    # A socket's path is short.
    home = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    command = ["gpg", "--batch", "--homedir", str(home), "--passphrase", "", "--quick-generate-key"]
    subprocess.run([*command, "test@rouse.invalid", "ed25519", "sign", "1d"], check=True, capture_output=True)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    shutil.rmtree(home)


def test_files_are_what_their_checksums_say(folder: Path) -> None:
    assert verify_checksums(folder) == ["disk", "kernel"]


def test_a_changed_and_a_missing_file_are_both_named(folder: Path) -> None:
    (folder / "disk").write_bytes(b"another")
    (folder / "kernel").unlink()
    with pytest.raises(SigningError, match=r"disk is not what was published; kernel is missing"):
        verify_checksums(folder)


@pytest.mark.parametrize("line", ["", "x", f"{'0' * 64}  ../secret", f"{'0' * 64}  ..", f"{'0' * 63}  disk"])
def test_a_hostile_list_is_refused(folder: Path, line: str) -> None:
    (folder / CHECKSUMS).write_text(line + "\n")
    with pytest.raises(SigningError):
        verify_checksums(folder)


def test_new_checksums_take_away_the_old_signature(folder: Path) -> None:
    (folder / SIGNATURE).write_text("of something else")
    write_checksums(folder)
    assert not (folder / SIGNATURE).exists()


@needs_gpg
def test_what_was_signed_is_verified(folder: Path, runner: Runner, keys: Path, tmp_path: Path) -> None:
    sign(folder, runner=runner, key="test@rouse.invalid", home=keys)
    public = tmp_path / "public.pgp"
    export_key(public, runner=runner, key="test@rouse.invalid", home=keys)
    assert verify(folder, runner=runner, keys=public) == ["disk", "kernel"]
    (folder / "disk").write_bytes(b"another")
    with pytest.raises(SigningError, match="disk is not"):
        verify(folder, runner=runner, keys=public)


@needs_gpg
def test_another_key_s_signature_is_refused(folder: Path, runner: Runner, keys: Path, tmp_path: Path) -> None:
    sign(folder, runner=runner, key="test@rouse.invalid", home=keys)
    (tmp_path / "empty.pgp").write_bytes(b"")
    with pytest.raises(SigningError, match="by a key that is not in"):
        verify(folder, runner=runner, keys=tmp_path / "empty.pgp")


@needs_gpg
def test_changed_checksums_are_refused(folder: Path, runner: Runner, keys: Path, tmp_path: Path) -> None:
    sign(folder, runner=runner, key="test@rouse.invalid", home=keys)
    public = tmp_path / "public.pgp"
    export_key(public, runner=runner, key="test@rouse.invalid", home=keys)
    (folder / "disk").write_bytes(b"another")
    signature = (folder / SIGNATURE).read_bytes()
    write_checksums(folder)
    (folder / SIGNATURE).write_bytes(signature)
    with pytest.raises(SigningError, match="signature"):
        verify(folder, runner=runner, keys=public)


@needs_gpg
def test_a_key_that_is_not_there_is_one_clear_error(folder: Path, runner: Runner, keys: Path) -> None:
    with pytest.raises(SigningError, match=r"nobody@rouse\.invalid"):
        sign(folder, runner=runner, key="nobody@rouse.invalid", home=keys)
