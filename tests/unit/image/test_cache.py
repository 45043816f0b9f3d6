import os
import subprocess
import sys
from pathlib import Path

import pytest

from image_build.cache import Cache, key_of, remove
from image_build.errors import ImageError


def test_the_second_time_nothing_is_made(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    assert cache.get("root", "key", make) == (tmp_path / "root-key", False)
    assert cache.get("root", "key", make) == (tmp_path / "root-key", True)
    assert len(made) == 1


def test_what_was_not_finished_is_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise ImageError("no")

    with pytest.raises(ImageError):
        cache.get("root", "key", fail)
    folder, there = cache.get("root", "key", lambda made: made.mkdir())
    assert not there
    assert not (folder / "half").exists()


def test_a_key_changes_with_contents_names_and_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = key_of(tmp_path)
    assert key_of(tmp_path) == first
    (tmp_path / "a").write_text("2")
    assert key_of(tmp_path) != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, key_of(tmp_path), key_of("1", "2"), key_of("2", "1"), key_of("12"), key_of(["1", "2"])}) == 6


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert kept.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_is_mounted_is_never_deleted(tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs none {tmp_path}/root && touch {tmp_path}/root/kept
        python3 - <<'END' && test -e {tmp_path}/root/kept
import sys
from pathlib import Path
from image_build.cache import remove
from image_build.errors import ImageError
try:
    remove(Path({str(tmp_path)!r}))
except ImageError:
    sys.exit(0)
sys.exit(1)
END
    """
    (tmp_path / "root").mkdir()
    script = script.replace("python3", sys.executable)
    namespace = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(namespace, check=False, env=environment).returncode == 0
