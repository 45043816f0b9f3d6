import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from image_build.oci import make_oci


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    program = root / "usr" / "bin" / "rouse"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (root / "usr" / "bin" / "again").hardlink_to(program)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr" / "lib" / "modules").mkdir(parents=True)
    (root / "usr" / "lib" / "modules" / "driver").write_text("for a kernel")
    os.mkfifo(root / "pipe")
    return root


def _read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as packed:
        return {entry.name: _content(packed, entry) for entry in packed if entry.isfile()}


def _content(packed: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = packed.extractfile(entry)
    assert file is not None
    return file.read()


def _make(root: Path, name: str) -> Path:
    target = root.parent / name
    make_oci(root, target, version="1.0", architecture="amd64", epoch=1_000_000_000)
    return target


def test_every_reference_leads_to_what_it_says(root: Path) -> None:
    files = _read(_make(root, "a.oci.tar"))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files["index.json"])
    manifest = json.loads(files["blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")])
    for part in (manifest["config"], *manifest["layers"]):
        blob = files["blobs/sha256/" + part["digest"].removeprefix("sha256:")]
        assert len(blob) == part["size"]
        assert "sha256:" + hashlib.sha256(blob).hexdigest() == part["digest"]
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
    layer = files["blobs/sha256/" + manifest["layers"][0]["digest"].removeprefix("sha256:")]
    unpacked = gzip.decompress(layer)
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(unpacked).hexdigest()]
    assert config["config"]["Entrypoint"] == ["/usr/bin/rouse"]


def test_a_layer_has_links_and_modes_and_no_kernel_modules(root: Path) -> None:
    files = _read(_make(root, "a.oci.tar"))
    layer = max(
        (blob for name, blob in files.items() if name.startswith("blobs/") and blob[:2] == b"\x1f\x8b"), key=len
    )
    with tarfile.open(fileobj=io.BytesIO(layer)) as packed:
        entries = {entry.name: entry for entry in packed}
    assert entries["bin"].linkname == "usr/bin"
    assert entries["usr/bin/rouse"].islnk()
    assert entries["usr/bin/again"].mode == 0o755
    assert "usr/lib/modules" in entries
    assert "usr/lib/modules/driver" not in entries
    assert "pipe" not in entries


def test_the_same_root_makes_the_same_bytes(root: Path) -> None:
    first = _make(root, "a.oci.tar").read_bytes()
    os.utime(root / "usr", (1, 1))
    assert _make(root, "b.oci.tar").read_bytes() == first


def test_nothing_is_left_beside_it(root: Path) -> None:
    target = _make(root, "a.oci.tar")
    assert {path.name for path in target.parent.iterdir()} == {"root", "a.oci.tar"}
