"""The same root file system as an OCI image: one layer, one configuration, the same bytes from the same root.

Formats: OCI Image Format Specification 1.1 (image layout, manifest, configuration) and its annotations.
"""

import gzip
import hashlib
import io
import json
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from image_build.layout import Architecture

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

_BLOBS = "blobs/sha256"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in an OCI image's store."""

    type: str
    digest: str
    size: int

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """Return how manifests refer to it."""
        return {"mediaType": self.type, "digest": f"sha256:{self.digest}", "size": self.size, **more}


def make_oci(root: Path, target: Path, *, version: str, architecture: Architecture, epoch: int) -> None:
    """Write an OCI image as a tar archive of its layout folder.

    Args:
        root: the finished root file system.
        target: the archive.
        version: the image's, which becomes its tag.
        architecture: the image's.
        epoch: time stamp of everything, in seconds since 1970.
    """
    folder = target.with_suffix(".layout")
    blobs = folder / _BLOBS
    blobs.mkdir(parents=True)
    try:
        layer, unpacked = _write_layer(root, blobs, epoch)
        created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        annotations = {
            "org.opencontainers.image.created": created,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.title": "rouse",
            "org.opencontainers.image.version": version,
        }
        config = write_json(blobs, CONFIG_TYPE, _config(unpacked, architecture, created, annotations))
        manifest = write_json(
            blobs,
            MANIFEST_TYPE,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": annotations,
            },
        )
        reference = manifest.descriptor(
            platform={"architecture": architecture, "os": "linux"},
            annotations={"org.opencontainers.image.ref.name": version},
        )
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [reference]}
        (folder / "index.json").write_bytes(encoded(index))
        (folder / "oci-layout").write_bytes(encoded({"imageLayoutVersion": "1.0.0"}))
        with target.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add_all(archive, folder, epoch)
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def encoded(document: object) -> bytes:
    """Return a document's bytes: the same ones for the same document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_json(blobs: Path, kind: str, document: object) -> Blob:
    """Write a JSON document to the store."""
    data = encoded(document)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return Blob(kind, digest, len(data))


def _config(unpacked: str, architecture: Architecture, created: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/rouse"],
            "Cmd": ["--help"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"],
            "Volumes": {"/etc/rouse": {}, "/var/lib/rouse": {}},
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{unpacked}"]},
        "history": [{"created": created, "created_by": "rouse image build"}],
    }


def _write_layer(root: Path, blobs: Path, epoch: int) -> tuple[Blob, str]:
    """Write the root as a compressed layer; return it and the digest of what is in it."""
    part = blobs / "layer.part"
    unpacked = hashlib.sha256()
    with part.open("wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6) as packed:
            tee = _Tee(packed, unpacked)
            with tarfile.open(fileobj=tee, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                _add_all(archive, root, epoch, skip=("boot", "usr/lib/modules", "usr/lib/firmware"))
        size = file.tell()
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    part.rename(blobs / digest)
    return Blob(LAYER_TYPE, digest, size), unpacked.hexdigest()


class _Tee(io.RawIOBase):
    """Writes to a file and a digest."""

    def __init__(self, file: gzip.GzipFile, digest: Any) -> None:
        self._file = file
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)


def _add_all(archive: tarfile.TarFile, root: Path, epoch: int, skip: tuple[str, ...] = ()) -> None:
    linked: dict[tuple[int, int], str] = {}
    for path in _ordered(root, skip):
        found = path.lstat()
        name = str(path.relative_to(root))
        entry = tarfile.TarInfo(name)
        entry.mtime, entry.uid, entry.gid = epoch, found.st_uid, found.st_gid
        entry.mode = stat.S_IMODE(found.st_mode)
        if path.is_symlink():
            entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        elif path.is_dir():
            entry.type = tarfile.DIRTYPE
        elif path.is_file():
            before = linked.setdefault((found.st_dev, found.st_ino), name)
            if before != name:
                entry.type, entry.linkname = tarfile.LNKTYPE, before
            else:
                entry.size = found.st_size
                with path.open("rb") as file:
                    archive.addfile(entry, file)
                continue
        else:
            continue  # a container brings its own devices
        archive.addfile(entry)


def _ordered(root: Path, skip: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(root.iterdir(), key=lambda found: found.name):
        yield from _below(path, root, skip)


def _below(path: Path, root: Path, skip: tuple[str, ...]) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink() and str(path.relative_to(root)) not in skip:
        for child in sorted(path.iterdir(), key=lambda found: found.name):
            yield from _below(child, root, skip)
