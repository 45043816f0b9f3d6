"""A trained router on disk: a folder with `manifest.json` and `weights.npz`, checked to the last number when read.

The arrays are NumPy's own format without objects (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html):
nothing in a file is ever unpickled or run.
"""

import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from appliance.routing.errors import RouterFilesError
from appliance.routing.features import NgramFeaturiser
from appliance.routing.model import FactorsHead, Head, HeadKind, LogisticHead, NeighboursHead, TrainedRouter

MANIFEST, WEIGHTS = "manifest.json", "weights.npz"
LARGEST_MANIFEST = 1024 * 1024
LARGEST_WEIGHTS = 128 * 1024 * 1024
LARGEST_NUMBER = 1e6
"""Of any array: three such matrices in a row stay far below float32's end, so that no decision overflows."""
VERSION_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"

ARRAYS: dict[HeadKind, tuple[str, ...]] = {
    "logistic": ("coefficients", "intercepts"),
    "neighbours": ("points", "known"),
    "factors": ("loadings", "offsets", "vectors", "means"),
}
PROJECTION = "projection"
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([ -&(-~]{1,16})', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]{0,40})\), \} *\n",
    re.DOTALL,
)

_Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_ExpertName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Featuriser(_Strict):
    kind: Literal["ngrams"]
    revision: int
    signs: int
    bits: Annotated[int, Field(ge=8, le=16)]
    longest: Annotated[int, Field(ge=32, le=4096)]


class Manifest(_Strict):
    """What a version is: everything but the numbers."""

    format: Literal[1]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    created: Annotated[str, Field(max_length=64)]
    experts: Annotated[tuple[_ExpertName, ...], Field(min_length=1, max_length=1024, strict=False)]
    featuriser: _Featuriser
    projected: bool
    """Whether `weights.npz` holds a linear map from n-grams to features."""
    head: Literal["logistic", "neighbours", "factors"]
    neighbours: Annotated[int, Field(ge=1, le=1024)] = 8
    sharpness: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 12.0
    costs: Annotated[tuple[_Unit, ...], Field(max_length=1024, strict=False)]
    cost_weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    about: dict[str, Any] = Field(default_factory=dict)
    """How it was trained and what it reached, for people."""

    @model_validator(mode="after")
    def _check_experts(self) -> Self:
        if len(set(self.experts)) != len(self.experts):
            raise ValueError("an expert is named twice")
        if len(self.costs) != len(self.experts):
            raise ValueError(f"{len(self.costs)} costs for {len(self.experts)} experts")
        return self


def save(folder: Path, router: TrainedRouter, *, created: str, about: dict[str, Any]) -> None:
    """Write a version's folder, whole or not at all.

    Raises:
        RouterFilesError: the folder exists or can't be written.
    """
    head = router.head
    arrays = {name: getattr(head, name) for name in ARRAYS[head.kind]}
    if router.projection is not None:
        arrays[PROJECTION] = router.projection
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    weights = packed.getvalue()
    manifest = Manifest(
        format=1,
        version=router.name,
        created=created,
        experts=router.experts,
        featuriser=_Featuriser(**router.featuriser.identity),
        projected=router.projection is not None,
        head=head.kind,
        costs=tuple(float(cost) for cost in router.costs),
        cost_weight=router.cost_weight,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        about=about,
        neighbours=head.count if isinstance(head, NeighboursHead) else 1,
        sharpness=head.sharpness if isinstance(head, NeighboursHead) else 0.0,
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
        try:
            _write(draft / WEIGHTS, weights)
            _write(draft / MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode())
            draft.chmod(0o755)
            if folder.exists():
                raise RouterFilesError(f"{folder}: exists already; choose another version")
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise RouterFilesError(f"{folder}: can't be written: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """Return a version's manifest.

    Raises:
        RouterFilesError: it is missing, too large, or not what it must be.
    """
    file = folder / MANIFEST
    try:
        # JSON alone knows no NaN, but Python's reader does.
        document = json.loads(_bytes_of(file, LARGEST_MANIFEST), parse_constant=_refuse_constant)
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise _broken(file, f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise _broken(file, str(error)) from None
    if (
        manifest.featuriser.model_dump()
        != NgramFeaturiser(manifest.featuriser.bits, manifest.featuriser.longest).identity
    ):
        raise _broken(file, f"it was trained with other features of a text (revision {manifest.featuriser.revision})")
    return manifest


def load(folder: Path) -> TrainedRouter:
    """Read a version.

    Raises:
        RouterFilesError: a file is missing, too large, or not what it must be.
    """
    manifest = read_manifest(folder)
    file = folder / WEIGHTS
    packed = _bytes_of(file, LARGEST_WEIGHTS)
    if hashlib.sha256(packed).hexdigest() != manifest.weights_sha256:
        raise _broken(file, "its SHA-256 is not that of the manifest")
    names = (*ARRAYS[manifest.head], *((PROJECTION,) if manifest.projected else ()))
    try:
        arrays = _arrays(packed, names)
        head, projection = _head(manifest, arrays)
    except Exception as error:
        # A damaged archive has no few ways to fail: zipfile, zlib and struct raise what they like.
        raise _broken(file, str(error) or type(error).__name__) from error
    return TrainedRouter(
        name=manifest.version,
        experts=manifest.experts,
        featuriser=NgramFeaturiser(manifest.featuriser.bits, manifest.featuriser.longest),
        projection=projection,
        head=head,
        costs=np.array(manifest.costs, np.float32),
        cost_weight=manifest.cost_weight,
    )


def _arrays(packed: bytes, names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """Return the arrays, whose declared sizes are compared with what is there before memory is taken for them."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = archive.infolist()
        wanted = {f"{name}.npy" for name in names}
        found = [member.filename for member in members]
        if set(found) != wanted or len(found) != len(wanted):
            raise ValueError(f"expected the arrays {', '.join(sorted(wanted))}, found {', '.join(sorted(found))}")
        if sum(member.file_size for member in members) > LARGEST_WEIGHTS:
            raise ValueError(f"it unpacks to more than {LARGEST_WEIGHTS} bytes")
        for member in members:
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(f"{member.filename}: expected it stored or deflated")
        arrays = {}
        for member in members:
            with archive.open(member) as stream:
                data = stream.read(member.file_size + 1)
            arrays[member.filename.removesuffix(".npy")] = _array(member.filename, data)
    return arrays


def _array(name: str, data: bytes) -> NDArray[np.float32]:
    # NumPy would read the header as Python, and mend and warn of what Python 2 wrote; `save` writes it in one way.
    header = _HEADER.match(data)
    if header is None or header.end() != 10 + int.from_bytes(data[8:10], "little"):
        raise ValueError(f"{name}: its header is not that of version 1.0 of NumPy's format")
    dtype, order, dimensions = (part.decode("ascii") for part in header.groups())
    if dtype != "<f4":
        raise ValueError(f"{name}: expected numbers of the type <f4, found {dtype}")
    shape = tuple(int(number) for number in dimensions.replace(",", " ").split())
    if len(shape) not in {1, 2} or min(shape) < 1:
        raise ValueError(f"{name}: expected one or two dimensions, found {shape}")
    if math.prod(shape) * 4 != len(data) - header.end():
        raise ValueError(f"{name}: the shape {shape} does not go with {len(data)} bytes")
    numbers = np.frombuffer(data, np.dtype("<f4"), offset=header.end())
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name}: holds a number that is not finite")
    if np.abs(numbers).max() > LARGEST_NUMBER:
        raise ValueError(f"{name}: holds a number beyond {LARGEST_NUMBER:.0f}")
    return np.ascontiguousarray(numbers.reshape(shape, order="F" if order == "True" else "C"), np.float32)


def _head(manifest: Manifest, arrays: dict[str, NDArray[np.float32]]) -> tuple[Head, NDArray[np.float32] | None]:
    """Build the head from arrays whose shapes fit each other and the manifest."""
    count, grams = len(manifest.experts), 1 << manifest.featuriser.bits
    projection = arrays.get(PROJECTION)
    features = grams
    if projection is not None:
        _expect(PROJECTION, projection, (grams, None))
        features = projection.shape[1]
    match manifest.head:
        case "logistic":
            _expect("coefficients", arrays["coefficients"], (features, count))
            _expect("intercepts", arrays["intercepts"], (count,))
            return LogisticHead(arrays["coefficients"], arrays["intercepts"]), projection
        case "neighbours":
            points, known = arrays["points"], arrays["known"]
            _expect("points", points, (features, None))
            _expect("known", known, (points.shape[1], count))
            if known.min() < 0 or known.max() > 1:
                raise ValueError("known: a quality is not between 0 and 1")
            return NeighboursHead(points, known, manifest.neighbours, manifest.sharpness), projection
        case "factors":
            _expect("loadings", arrays["loadings"], (features, None))
            factors = arrays["loadings"].shape[1]
            _expect("offsets", arrays["offsets"], (factors,))
            _expect("vectors", arrays["vectors"], (factors, count))
            _expect("means", arrays["means"], (count,))
            return FactorsHead(*(arrays[name] for name in ARRAYS["factors"])), projection


def _expect(name: str, array: NDArray[np.float32], shape: tuple[int | None, ...]) -> None:
    fits = len(shape) == array.ndim and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name}: expected the shape {wanted}, found {' x '.join(map(str, array.shape))}")


def _bytes_of(file: Path, largest: int) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(largest + 1)
    except OSError as error:
        raise _broken(file, f"it can't be read: {error}") from None
    if len(data) > largest:
        raise _broken(file, f"it is larger than {largest} bytes")
    return data


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _broken(file: Path, what: str) -> RouterFilesError:
    return RouterFilesError(f"{file}: {what[:500]}; train again with `rouse router train`, or activate another version")
