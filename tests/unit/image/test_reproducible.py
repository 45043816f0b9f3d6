from pathlib import Path

from image_build.reproducible import compare


def _folder(path: Path) -> Path:
    (path / "usr").mkdir(parents=True)
    (path / "usr" / "file").write_bytes(b"a" * 100_000)
    (path / "link").symlink_to("usr")
    return path


def test_the_same_folders_do_not_differ(tmp_path: Path) -> None:
    assert compare(_folder(tmp_path / "a"), _folder(tmp_path / "b")) == []


def test_the_place_where_contents_begin_to_differ_is_shown(tmp_path: Path) -> None:
    first, second = _folder(tmp_path / "a"), _folder(tmp_path / "b")
    (second / "usr" / "file").write_bytes(b"a" * 70_000 + b"b" + b"a" * 29_999)
    (line,) = compare(first, second)
    assert line.startswith("usr/file: ")
    assert "from byte 70000: b'aaaaaaaaaaaaaaaa' and b'baaaaaaaaaaaaaaa'" in line


def test_modes_links_and_names_count(tmp_path: Path) -> None:
    first, second = _folder(tmp_path / "a"), _folder(tmp_path / "b")
    (second / "usr" / "file").chmod(0o600)
    (second / "link").unlink()
    (second / "link").symlink_to("other")
    (first / "more").touch()
    assert len(compare(first, second)) == 3


def test_a_file_that_goes_on_differs_at_the_end(tmp_path: Path) -> None:
    first, second = _folder(tmp_path / "a"), _folder(tmp_path / "b")
    (second / "usr" / "file").write_bytes(b"a" * 100_001)
    (line,) = compare(first, second)
    assert "from byte 100000: b'' and b'a'" in line
