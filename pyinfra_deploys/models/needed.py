"""Which model files a machine's experts need, and what is known of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.models.catalogue import Catalogue
from appliance.settings import Settings


@dataclass(frozen=True, slots=True)
class Needed:
    """A file below the models folder.

    Attributes:
        name: its path there.
        model: its id in the catalogue, if it is there.
        size: as the catalogue has it.
        sha256: as the catalogue has it, where it does.
        here: the same file on this machine, if there is one.
    """

    name: str
    model: str | None = None
    size: int | None = None
    sha256: str | None = None
    here: Path | None = None

    @property
    def bytes(self) -> int | None:
        """How large it is, as far as anybody knows."""
        return self.here.stat().st_size if self.here is not None else self.size


def needed(settings: Settings, catalogue: Catalogue, source: Path | None) -> tuple[Needed, ...]:
    """Return the files, in the experts' order; those with a path of their own are the user's business."""
    return tuple({one.name: one for one in _needed(settings, catalogue, source)}.values())


def _needed(settings: Settings, catalogue: Catalogue, source: Path | None) -> Iterator[Needed]:
    known = {file.name: (model.id, file) for model in catalogue.models for file in model.files}
    for expert in settings.experts.values():
        for name in (str(expert.model), expert.projector):
            if not name or Path(name).is_absolute():
                continue
            here = source / name if source is not None and (source / name).is_file() else None
            if name in known:
                model, file = known[name]
                yield Needed(name, model, file.size, file.sha256, here)
            else:
                yield Needed(name, here=here)
