"""Bodies of requests, as OpenAI's API reference has them (https://platform.openai.com/docs/api-reference).

Fields that OpenAI knows and that make no difference here are accepted and ignored; others are refused by
name.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from appliance.experts.errors import InvalidRequestError, UnsupportedError
from appliance.experts.sampling import Sampling

MOST_TOOLS = 128
MOST_MESSAGES = 4096
LARGEST_SEED = (1 << 64) - 1


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_parts(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _as_choice(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class _Loose(_Body):
    """Clients send back what other servers gave them, so unknown fields are ignored here."""

    model_config = ConfigDict(extra="ignore")


class ContentPart(_Loose):
    """Part of a message's content; text only."""

    type: Literal["text"]
    text: str


class CalledFunction(_Loose):
    """A call that the assistant made."""

    name: str = Field(min_length=1, max_length=256)
    arguments: str
    """JSON text of an object."""


class MessageToolCall(_Loose):
    """A tool call in an assistant's message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(_Loose):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[ContentPart] | None, BeforeValidator(_as_parts)] = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return "".join(part.text for part in self.content or ())

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the role {self.role} needs content")
        return self


class Function(_Loose):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.:-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema of an object."""


class Tool(_Loose):
    """A tool that is offered to the model."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Loose):
    """The function that must be called."""

    name: str


class ToolChoice(_Loose):
    """Whether, or which, tool must be called."""

    type: Literal["none", "auto", "required", "function"]
    function: NamedFunction | None = None


class JsonSchema(_Loose):
    """A schema that the answer must follow."""

    name: str = ""
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(_Loose):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Loose):
    """What a stream contains besides the answer."""

    include_usage: bool = False


class _Generate(_Body):
    """What both kinds of generation have in common."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.8, ge=0, le=5)
    top_p: float = Field(default=0.95, ge=0, le=1)
    top_k: int = Field(default=40, ge=0, le=1 << 20)
    min_p: float = Field(default=0.05, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-LARGEST_SEED, le=LARGEST_SEED)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    repeat_penalty: float = Field(default=1.0, gt=0, le=10)
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]] | None, BeforeValidator(_as_list)] = (
        Field(default=None, max_length=16)
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    n: int | None = Field(default=None, ge=1, le=128)

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    cache_prompt: Any = None

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of the answer; None is what fits."""
        return self.max_tokens

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check_supported(self) -> None:
        """Raise UnsupportedError for what OpenAI has and an expert has not."""
        if self.n not in (None, 1):
            raise UnsupportedError("Only n = 1 is supported: send the request again for another.", param="n")

    def sampling(self, vocabulary: int) -> Sampling:
        """Return how tokens are chosen. Raises InvalidRequestError for a bias on a token there is not."""
        bias: dict[int, float] = {}
        for token, value in (self.logit_bias or {}).items():
            if not token.isascii() or not token.isdigit() or int(token[:10]) >= vocabulary or len(token) > 10:
                raise InvalidRequestError(
                    f"{token[:32]!r} is no token id; expected 0 to {vocabulary - 1}.", param="logit_bias"
                )
            bias[int(token)] = value
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            seed=self.seed,
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=bias,
        )


class ChatRequest(_Generate):
    """Body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Annotated[ToolChoice | None, BeforeValidator(_as_choice)] = None
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: Any = None
    modalities: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    prompt_cache_key: Any = None
    safety_identifier: Any = None

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of the answer; None is what fits."""
        return self.max_completion_tokens or self.max_tokens

    def check_supported(self) -> None:
        """Raise UnsupportedError for what OpenAI has and an expert has not."""
        super().check_supported()
        if self.logprobs:
            raise UnsupportedError("Log probabilities are not supported.", param="logprobs")


class CompletionRequest(_Generate):
    """Body of POST /v1/completions."""

    prompt: Annotated[list[str] | list[int], BeforeValidator(_as_list)] = Field(min_length=1)
    max_tokens: int | None = Field(default=16, ge=1)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None
    logprobs: int | None = None

    def check_supported(self) -> None:
        """Raise UnsupportedError for what OpenAI has and an expert has not."""
        super().check_supported()
        if isinstance(self.prompt[0], str) and len(self.prompt) > 1:
            raise UnsupportedError("One prompt a request: send one request for each.", param="prompt")
        for field in ("echo", "suffix", "logprobs"):
            if getattr(self, field):
                raise UnsupportedError(f"{field} is not supported.", param=field)


class EmbeddingRequest(_Body):
    """Body of POST /v1/embeddings."""

    input: Annotated[list[str] | list[int], BeforeValidator(_as_list)] = Field(min_length=1, max_length=100_000)
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: Any = None


def parse[Body: _Body](kind: type[Body], body: bytes) -> Body:
    """Validate a body. Raises InvalidRequestError with the first field that does not fit."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise InvalidRequestError(f"The body is not valid JSON: {first['msg']}.") from None
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise InvalidRequestError(f"{path}: there is no such field.", param=path) from None
        raise InvalidRequestError(f"{path or 'The body'}: {first['msg']}.", param=path or None) from None
