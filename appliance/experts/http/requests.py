"""Bodies of requests, as OpenAI's API reference has them (https://platform.openai.com/docs/api-reference).

Fields that OpenAI knows and that make no difference here are accepted and ignored; others are refused by
name. What an expert adds has llama-server's names where it has the field.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from appliance.experts.errors import InvalidRequestError, UnsupportedError
from appliance.experts.http.messages import (
    MOST_TOOLS,
    Body,
    Message,
    ResponseFormat,
    StreamOptions,
    Tool,
    ToolChoice,
    as_choice,
)
from appliance.experts.sampling import Sampling

MOST_MESSAGES = 4096
MOST_CHOICES = 16
"""Answers to one request, of all its prompts together."""
MOST_TOP_LOGPROBS = 20
LARGEST_SEED = (1 << 64) - 1
LARGEST_GRAMMAR = 32 * 1024
"""Characters of a client's grammar."""

type Truncation = Literal["disabled", "auto"]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_prompts(value: object) -> object:
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        return [value]
    return _as_list(value)


class _Generate(Body):
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
    repeat_last_n: int = Field(default=64, ge=0, le=1 << 16)
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]] | None, BeforeValidator(_as_list)] = (
        Field(default=None, max_length=16)
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    n: int | None = Field(default=None, ge=1, le=128)
    response_format: ResponseFormat | None = None
    grammar: str | None = Field(default=None, max_length=LARGEST_GRAMMAR)
    prompt_cache_key: str | None = Field(default=None, max_length=256)
    """Requests with the same key begin alike."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    cache_prompt: Any = None
    safety_identifier: Any = None

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of the answer; None is what fits."""
        return self.max_tokens

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check_supported(self) -> None:
        """Raise InvalidRequestError for what OpenAI has and an expert has not, and for fields that exclude another."""
        form = self.response_format
        if self.grammar is not None and form is not None and form.type != "text":
            raise InvalidRequestError("grammar and response_format exclude one another.", param="grammar")

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
            penalty_last_n=self.repeat_last_n,
            logit_bias=bias,
        )


class ChatRequest(_Generate):
    """Body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Annotated[ToolChoice | None, BeforeValidator(as_choice)] = None
    parallel_tool_calls: bool = True
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    truncation: Truncation | None = None
    reasoning_format: Literal["auto", "deepseek", "none"] = "auto"
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, max_length=16)
    modalities: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of the answer; None is what fits."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def reported_logprobs(self) -> int | None:
        """How many alternatives are reported with each token; None reports nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def check_supported(self) -> None:
        """Raise InvalidRequestError for what an expert has not, and for fields that exclude another."""
        super().check_supported()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
        form = self.response_format
        if self.grammar is not None or (form is not None and form.type != "text"):
            choice = self.tool_choice
            if choice is not None and choice.type in ("required", "function"):
                raise InvalidRequestError(
                    "A tool call is demanded, for which grammar or response_format leave no room.", param="tool_choice"
                )
        if self.modalities not in (None, ["text"]):
            raise UnsupportedError("An expert answers with text only.", param="modalities")


class CompletionRequest(_Generate):
    """Body of POST /v1/completions."""

    prompt: Annotated[list[str] | list[list[int]], BeforeValidator(_as_prompts)] = Field(
        min_length=1, max_length=MOST_CHOICES
    )
    max_tokens: int | None = Field(default=16, ge=1)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = Field(default=None, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=5)

    @property
    def reported_logprobs(self) -> int | None:
        """How many alternatives are reported with each token; None reports nothing."""
        return self.logprobs

    def check_supported(self) -> None:
        """Raise InvalidRequestError for what an expert has not, and for fields that exclude another."""
        super().check_supported()
        if self.echo:
            raise UnsupportedError("The prompt is not repeated: put it in front of the answer yourself.", param="echo")
        if self.suffix:
            raise UnsupportedError("Text can't be filled in before a suffix here.", param="suffix")
        if self.best_of not in (None, self.choices):
            raise UnsupportedError(
                "best_of can only be n: ask for n answers with logprobs, and choose among them.", param="best_of"
            )
        if [] in self.prompt:
            raise InvalidRequestError("prompt: a list of tokens is empty.", param="prompt")


class EmbeddingRequest(Body):
    """Body of POST /v1/embeddings."""

    input: Annotated[list[str] | list[list[int]], BeforeValidator(_as_prompts)] = Field(min_length=1)
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    truncation: Truncation | None = None
    user: Any = None


class Document(Body):
    """A text to be ranked; other fields than its text are refused."""

    text: str


def _as_documents(value: object) -> object:
    if isinstance(value, list):
        return [{"text": item} if isinstance(item, str) else item for item in value]
    return value


class RerankRequest(Body):
    """Body of POST /v1/rerank, as Jina and Cohere have it (https://docs.cohere.com/reference/rerank)."""

    query: str = Field(min_length=1)
    documents: Annotated[list[Document], BeforeValidator(_as_documents)] = Field(min_length=1)
    model: str | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False
    truncation: Truncation | None = None
    user: Any = None


def parse[B: Body](kind: type[B], body: bytes) -> B:
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
