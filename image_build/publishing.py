"""Publishes a build to an OCI registry: the OCI image under its version, and all files as an artifact beside it.

The artifact follows the OCI Image Format Specification 1.1, "Guidance for Artifacts Usage", with file names where ORAS
keeps them (`org.opencontainers.image.title`), so `oras pull` gets the files back.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import aiohttp

from image_build.errors import ImageError
from image_build.inspection import read_manifest
from image_build.oci import MANIFEST_TYPE, Blob, encoded
from image_build.registry import Credentials, Registry, Target
from image_build.signing import CHECKSUMS, SIGNATURE, verify_checksums

__all__ = ["ARTIFACT_TYPE", "Credentials", "publish"]

ARTIFACT_TYPE = "application/vnd.rouse.image.v1"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_TYPES = {
    ".raw.zst": "application/vnd.rouse.disk.v1.raw+zstd",
    ".root": "application/vnd.rouse.root.v1.erofs",
    ".verity": "application/vnd.rouse.verity.v1",
    ".efi": "application/vnd.rouse.kernel.v1.efi",
    ".cdx.json": "application/vnd.cyclonedx+json",
    ".json": "application/json",
}
_TITLE = "org.opencontainers.image.title"
# A registry answers slowly while it checks gigabytes.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=300)

type OnText = Callable[[str], None]


async def publish(
    folder: Path,
    target: str,
    *,
    plain_http: bool,
    credentials: Credentials | None,
    on_step: OnText,
    on_line: OnText,
) -> list[str]:
    """Push a build; return the references of the OCI image and of the artifact, by digest.

    Raises:
        RegistryError: the registry refuses, can't be reached or answers nonsense.
        SigningError: a file is not what was built.
    """
    verify_checksums(folder)
    manifest = read_manifest(folder)
    parsed = Target.parse(target)
    tag = manifest.version.replace("+", "-").replace("~", "-")
    references = []
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        registry = Registry(http, parsed, plain_http=plain_http, credentials=credentials)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
            on_step(f"OCI image {tag}")
            layout = Path(unpacked)
            digest = await _push_layout(registry, _unpack(folder, layout), tag, on_line)
            references.append(f"{parsed.host}/{parsed.repository}:{tag}@{digest}")
        on_step(f"Disk image and files {tag}-disk")
        digest = await _push_files(registry, folder, f"{tag}-disk", on_line)
        references.append(f"{parsed.host}/{parsed.repository}:{tag}-disk@{digest}")
    return references


def _unpack(folder: Path, layout: Path) -> Path:
    archive = next(iter(folder.glob("*.oci.tar")), None)
    if archive is None:
        raise ImageError(f"{folder} has no OCI image (*.oci.tar)")
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(layout, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise ImageError(f"{archive} is no OCI image: {error}") from error
    return layout


async def _push_layout(registry: Registry, layout: Path, tag: str, on_line: OnText) -> str:
    """Push an image layout's one manifest and all that it names."""
    try:
        index = json.loads((layout / "index.json").read_bytes())
        data = (layout / "blobs" / "sha256" / _hex(index["manifests"][0]["digest"])).read_bytes()
        manifest = json.loads(data)
        parts = [manifest["config"], *manifest["layers"]]
        blobs = [Blob(part["mediaType"], _hex(part["digest"]), int(part["size"])) for part in parts]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"the OCI image is damaged: {error}") from error
    for blob in blobs:
        await _push(registry, layout / "blobs" / "sha256" / blob.digest, blob, blob.type, on_line)
    return await registry.push_manifest(data, MANIFEST_TYPE, tag)


async def _push_files(registry: Registry, folder: Path, tag: str, on_line: OnText) -> str:
    """Push a folder's files as the layers of an artifact."""
    layers = []
    for path, blob in _blobs(folder):
        await _push(registry, path, blob, path.name, on_line)
        layers.append(blob.descriptor(annotations={_TITLE: path.name}))
    config = Blob(_EMPTY_TYPE, hashlib.sha256(_EMPTY).hexdigest(), len(_EMPTY))
    await registry.push_blob(io.BytesIO(_EMPTY), config, lambda _: None)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config.descriptor(),
        "layers": layers,
    }
    return await registry.push_manifest(encoded(manifest), MANIFEST_TYPE, tag)


def _blobs(folder: Path) -> list[tuple[Path, Blob]]:
    """Return the files of a build besides the OCI image."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.endswith(".oci.tar"):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append((path, Blob(_type_of(path.name), digest, path.stat().st_size)))
    return found


async def _push(registry: Registry, path: Path, blob: Blob, name: str, on_line: OnText) -> None:
    def shown(sent: int) -> None:
        on_line(f"{name}: {sent / 1e6:.0f} of {blob.size / 1e6:.0f} MB")

    with path.open("rb") as file:
        await registry.push_blob(file, blob, shown)


def _hex(digest: str) -> str:
    """Return the hexadecimal part of a digest.

    Raises:
        ValueError: it is none of SHA-256, and could name another file.
    """
    kind, _, rest = digest.partition(":")
    if kind != "sha256" or len(rest) != 64 or set(rest) - set("0123456789abcdef"):
        raise ValueError(f"{digest[:80]!r} is no digest")
    return rest


def _type_of(name: str) -> str:
    if name in {CHECKSUMS, SIGNATURE}:
        return "text/plain" if name == CHECKSUMS else "application/pgp-signature"
    return next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), "application/octet-stream")
