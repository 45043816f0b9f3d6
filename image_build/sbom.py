"""The image's bill of materials as CycloneDX 1.6: Debian's packages, Python's, models, and Rouse itself."""

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from image_build.layout import identity

_STATUS = "usr/lib/sysimage/dpkg/status"
_SITE_PACKAGES = "usr/lib/rouse/lib/python3*/site-packages"
_DISTRIBUTION = "trixie"


def make_sbom(root: Path, target: Path, *, version: str, epoch: int, models: Path | None) -> None:
    """Write the bill of materials of a finished root.

    Args:
        root: the root file system.
        target: file to write, JSON.
        version: the image's.
        epoch: its time stamp, in seconds since 1970.
        models: folder of models that the image has.
    """
    image = Component(name="rouse-image", version=version, type=ComponentType.OPERATING_SYSTEM, bom_ref="image")
    bom = Bom(
        # The same contents have the same number.
        serial_number=uuid.UUID(int=identity(f"sbom {version} {epoch}").int),
        metadata=BomMetaData(component=image, timestamp=datetime.fromtimestamp(epoch, UTC)),
    )
    found = [*debian_packages(root), *python_packages(root), *model_files(models)]
    for component in found:
        bom.components.add(component)
    bom.register_dependency(image, found)
    target.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n")


def debian_packages(root: Path) -> Iterator[Component]:
    """Find the installed Debian packages in dpkg's status file."""
    for paragraph in (root / _STATUS).read_text(encoding="utf-8").strip().split("\n\n"):
        fields = message_from_string(paragraph)
        if fields["Status"] != "install ok installed":
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        locator = PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": _DISTRIBUTION})
        yield _component(name, version, locator)


def python_packages(root: Path) -> Iterator[Component]:
    """Find the Python packages of the appliance's environment, by their core metadata."""
    for path in sorted(root.glob(f"{_SITE_PACKAGES}/*.dist-info/METADATA")):
        fields = message_from_bytes(path.read_bytes())
        name, version = str(fields["Name"]), str(fields["Version"])
        yield _component(name, version, PackageURL("pypi", None, name.lower().replace("_", "-"), version))


def model_files(models: Path | None) -> Iterator[Component]:
    """Find the models by their content."""
    for path in sorted(models.glob("*.gguf")) if models is not None else ():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield Component(
            name=path.name,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"model:{path.name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )


def _component(name: str, version: str, locator: PackageURL) -> Component:
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=locator, bom_ref=locator.to_string())
