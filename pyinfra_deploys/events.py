"""What the process that runs pyinfra is asked, and what it tells: one JSON object on each line."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, field_serializer

Outcome = Literal["changed", "unchanged", "would change", "failed"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Request(_Message):
    """What is to be done."""

    config_dir: str
    """Folder of the settings."""
    targets: tuple[str, ...]
    """Names, `@local`, `@chroot/FOLDER`; all machines when empty."""
    called: str | None = None
    """Whose settings `@local` or `@chroot/FOLDER` has."""
    parts: tuple[str, ...] = ()
    """Only these parts; all when empty."""
    any_role: bool = False
    """Whether the target is an image's root: its machines learn their roles at their first start, so it gets what any
    role needs."""
    dry: bool = False
    """Only say what would change."""
    sudo_passwords: dict[str, SecretStr] = {}
    """By target."""

    @field_serializer("sudo_passwords", when_used="json")
    def _reveal(self, passwords: dict[str, SecretStr]) -> dict[str, str]:
        return {target: password.get_secret_value() for target, password in passwords.items()}


class Connected(_Message):
    """A machine was reached, or was not."""

    kind: Literal["connected"] = "connected"
    machine: str
    error: str | None = None
    parts: tuple[str, ...] = ()
    """What it gets."""


class PartBegun(_Message):
    """A machine has been looked at for a part."""

    kind: Literal["part"] = "part"
    machine: str
    part: str
    operations: int


class OperationDone(_Message):
    """One operation has been done, or looked at."""

    kind: Literal["operation"] = "operation"
    machine: str
    part: str
    title: str
    outcome: Outcome
    seconds: float = 0.0
    text: str | None = None
    """What the machine said when it failed."""
    diff: str | None = None
    """How a file differs."""


class PartFailed(_Message):
    """A part could not be prepared for a machine, which gets nothing more."""

    kind: Literal["part failed"] = "part failed"
    machine: str
    part: str
    text: str


class Note(_Message):
    """What pyinfra says besides."""

    kind: Literal["note"] = "note"
    level: str
    text: str


class Ended(_Message):
    """All has been said."""

    kind: Literal["ended"] = "ended"
    succeeded: bool


Event = Annotated[
    Connected | PartBegun | OperationDone | PartFailed | Note | Ended,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
