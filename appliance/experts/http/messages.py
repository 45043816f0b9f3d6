"""What a chat request is made of: messages, tools, the form of the answer."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_TOOLS = 128


def _as_parts(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def as_choice(value: object) -> object:
    """Return the long form of a tool choice."""
    return {"type": value} if isinstance(value, str) else value


class Body(BaseModel):
    """A part of a request that has no fields but its own."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Loose(Body):
    """Clients send back what other servers gave them, so unknown fields are ignored here."""

    model_config = ConfigDict(extra="ignore")


class ImageUrl(Loose):
    """Where an image is; only `data:` URLs are read."""

    url: str
    detail: Any = None


class ContentPart(Loose):
    """Part of a message's content."""

    type: Literal["text", "image_url"]
    text: str = ""
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.type == "image_url" and self.image_url is None:
            raise ValueError("a part of the type image_url needs the field image_url")
        if self.type == "text" and "text" not in self.model_fields_set:
            raise ValueError("a part of the type text needs the field text")
        return self


class CalledFunction(Loose):
    """A call that the assistant made."""

    name: str = Field(min_length=1, max_length=256)
    arguments: str
    """JSON text of an object."""


class MessageToolCall(Loose):
    """A tool call in an assistant's message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Loose):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[ContentPart] | None, BeforeValidator(_as_parts)] = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return "".join(part.text for part in self.content or ())

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} needs content")
        return self


class Function(Loose):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema of an object."""


class Tool(Loose):
    """A tool that is offered to the model."""

    type: Literal["function"]
    function: Function


class NamedFunction(Loose):
    """The function that must be called."""

    name: str


class ToolChoice(Loose):
    """Whether, or which, tool must be called."""

    type: Literal["none", "auto", "required", "function"]
    function: NamedFunction | None = None


class JsonSchema(Loose):
    """A schema that the answer must follow."""

    name: str = ""
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(Loose):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Loose):
    """What a stream contains besides the answer."""

    include_usage: bool = False
