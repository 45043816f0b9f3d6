"""What every section of the settings is made of."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

NAME_PATTERN = "^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]
Role = Literal["hub", "expert", "voice", "vision"]


def ports_of(text: str) -> range:
    """Return the ports from one to another, both included, that a text such as `8110-8139` names.

    Raises:
        ValueError: it names none.
    """
    first, dash, last = text.partition("-")
    good = dash and all(part.isascii() and part.isdigit() and len(part) <= 5 for part in (first, last))
    if not good or not 1 <= int(first) <= int(last) <= 65535:
        raise ValueError("expected two ports with a dash between them, the smaller one first, such as 8110-8139")
    return range(int(first), int(last) + 1)


def _check_ports(text: str) -> str:
    ports_of(text)
    return text


PortRange = Annotated[str, AfterValidator(_check_ports)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error rather than a silent typo."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def check_together(one: str, one_value: object, other: str, other_value: object) -> None:
    """Refuse one key of a pair without the other."""
    if (one_value is None) != (other_value is None):
        present = other if one_value is None else one
        raise conflict(present, f"{one} and {other} go together")


def conflict(key: str, message: str) -> PydanticCustomError:
    """Return an error that names the key of the section at which to say it."""
    return PydanticCustomError("conflict", "{message}", {"key": key, "message": message})
