"""From a chat request to what the engine generates from."""

import functools
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.experts.backend import Backend, Grammar, Picture
from appliance.experts.chat import reasoning
from appliance.experts.chat.ambiguity import may_be_ambiguous
from appliance.experts.chat.formats import HERMES, CallFormat
from appliance.experts.chat.grammar import json_grammar
from appliance.experts.chat.history import shortened
from appliance.experts.chat.output import ToolPolicy
from appliance.experts.chat.reasoning import Thinking
from appliance.experts.chat.templates import ChatTemplate
from appliance.experts.chat.tool_prompt import generic_messages, native_messages, with_written_calls
from appliance.experts.errors import InvalidRequestError, UnsupportedError
from appliance.experts.generation import GenerationRequest
from appliance.experts.http.images import MOST_IMAGES, read_image
from appliance.experts.http.messages import ContentPart, Function, Message
from appliance.experts.http.requests import ChatRequest, CompletionRequest, Truncation

HARMONY_FINAL = "<|channel|>final<|message|>"
LONGEST_VARIABLE = 4096
"""Characters."""
RESERVED_VARIABLES = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}

type Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered chat."""

    tokens: list[int]
    thinking: Thinking | None
    """Whether the model may think first, and whether it is thinking already."""


@dataclass(frozen=True, slots=True)
class PreparedChat:
    """What the engine generates for a chat request."""

    generation: GenerationRequest
    dropped: int
    """Messages that were left out because the history was too long."""


class ChatPrompts:
    """Renders and tokenises chats for one model."""

    def __init__(self, backend: Backend) -> None:
        """Compile the model's template. Raises ModelLoadError."""
        info = backend.info
        self._backend = backend
        self._template = ChatTemplate(info.chat_template, bos=info.bos, eos=info.eos)
        self._channels = self._template.form is not None and self._template.form.channels
        texts = [text for text in (*info.special_texts, info.bos, info.eos) if text]
        self._specials = re.compile("|".join(map(re.escape, sorted(set(texts), key=len, reverse=True))) or "(?!)")

    def prepare(self, request: ChatRequest, *, context_tokens: int, truncation: Truncation) -> PreparedChat:
        """Return what to generate. Raises InvalidRequestError. Thread-safe; takes milliseconds."""
        _check_arguments(request.messages)
        variables = _variables(request)
        functions = _offered(request)
        grammar = answer_grammar(request, self._backend)
        policy = self._policy(request, functions) if grammar is None else None
        bound = grammar is not None or (policy is not None and policy.forced)

        def prompt(messages: Sequence[Message]) -> Prompt:
            return self.prompt(messages, functions, variables=variables, policy=policy, bound=bound, pictures=marked)

        messages, marked = self._with_pictures(request.messages)
        room = context_tokens - _reserve(request, context_tokens)
        whole = prompt(messages)
        if len(whole.tokens) > room and (request.truncation or truncation) == "auto":
            shorter = shortened(messages, lambda fewer: len(prompt(fewer).tokens) <= room)
            if shorter is not None:
                whole, messages = prompt(shorter), shorter
        separated = request.reasoning_format != "none" and not bound
        generation = GenerationRequest(
            prompt=whole.tokens,
            max_tokens=request.most_tokens or context_tokens,
            sampling=request.sampling(self._backend.info.vocabulary),
            stops=tuple(request.stop or ()),
            grammar=grammar,
            tools=policy,
            thinking=whole.thinking if separated else None,
            channels=self._channels and not bound,
            pictures=tuple(marked.values()),
            top_logprobs=request.reported_logprobs,
            name=request.prompt_cache_key or "",
        )
        return PreparedChat(generation, dropped=len(request.messages) - len(messages))

    def prompt(
        self,
        messages: Sequence[Message],
        functions: Sequence[Function],
        *,
        variables: Mapping[str, Any] | None = None,
        policy: ToolPolicy | None = None,
        bound: bool = False,
        pictures: Mapping[str, Picture] | None = None,
    ) -> Prompt:
        """Render and tokenise a chat; `bound` is an answer that a grammar leaves no room for thoughts in.

        Control tokens that stand in a message stay text: nobody can end his turn or open another's from
        within it.
        """
        escape, originals, mark = self._escaping()
        template = self._template
        variables = _mapped(variables or {}, escape)
        if template.form is not None:
            tools = [{"type": "function", "function": function.model_dump()} for function in functions]
            chat = _mapped(native_messages(messages), escape)
            if not template.writes_calls:
                chat = with_written_calls(chat, template.form)
            text = template.render(chat, tools=_mapped(tools, escape), variables=variables)
        else:
            text = template.render(_mapped(generic_messages(messages, functions), escape), variables=variables)
        thinking: Thinking | None = None
        if template.thinks:
            thinking = "open" if text.rstrip().endswith(reasoning.OPEN) else "marked"
        if bound and thinking == "open":
            text += f"{reasoning.CLOSE}\n\n"
        if policy is not None and policy.forced:
            text += policy.form.forcing
        elif bound and self._channels:
            text += HARMONY_FINAL
        tokens: list[int] = []
        for index, part in enumerate(mark.split(text)):
            if index % 2:
                tokens += self._backend.tokenize(originals[int(part)], special=False)
            else:
                tokens += self._mixed(part, pictures or {})
        return Prompt(with_bos(self._backend, tokens), thinking)

    def _mixed(self, text: str, pictures: Mapping[str, Picture]) -> list[int]:
        """Return the tokens of a text with marks of pictures in it."""
        tokens: list[int] = []
        pattern = "|".join(map(re.escape, pictures))
        for part in re.split(f"({pattern})", text) if pictures else (text,):
            if part in pictures:
                tokens += pictures[part].tokens
            elif part:
                tokens += self._backend.tokenize(part, special=True)
        return tokens

    def _with_pictures(self, messages: Sequence[Message]) -> tuple[Sequence[Message], dict[str, Picture]]:
        """Return the messages with marks in the place of images, and what these stand for."""
        marked: dict[str, Picture] = {}
        nonce = secrets.token_hex(8)

        def part(value: ContentPart, param: str) -> ContentPart:
            if value.image_url is None:
                return value
            if not self._backend.info.sees:
                raise UnsupportedError(
                    "This expert sees no images: it has no projector. Ask an expert with a vision model, or give "
                    "this one the projector of its model (setting `projector`).",
                    param=param,
                )
            if len(marked) >= MOST_IMAGES:
                raise InvalidRequestError(f"At most {MOST_IMAGES} images a request.", param=param)
            mark = f"\ue002{nonce}.{len(marked)}\ue003"
            marked[mark] = self._backend.picture(read_image(value.image_url.url, param))
            return ContentPart(type="text", text=mark)

        return [
            message.model_copy(
                update={
                    "content": [
                        part(value, f"messages.{index}.content.{number}")
                        for number, value in enumerate(message.content)
                    ]
                }
            )
            if message.content and any(value.image_url for value in message.content)
            else message
            for index, message in enumerate(messages)
        ], marked

    def _policy(self, request: ChatRequest, functions: Sequence[Function]) -> ToolPolicy | None:
        if not functions:
            return None
        form = self._template.form or HERMES
        forced = request.tool_choice is not None and request.tool_choice.type in ("required", "function")
        schemas = json.dumps([(function.name, function.parameters) for function in functions])
        grammar: Grammar = _cached_call_grammar(form, schemas, request.parallel_tool_calls)
        if may_be_ambiguous([function.parameters for function in functions]):
            grammar = self._backend.compile_grammar(str(grammar), "tools")
        return ToolPolicy(form=form, grammar=grammar, forced=forced, parallel=request.parallel_tool_calls)

    def _escaping(self) -> tuple[Callable[[str], str], list[str], re.Pattern[str]]:
        """Return what puts marks for control texts, what was replaced, and what finds the marks."""
        nonce = secrets.token_hex(8)
        originals: list[str] = []

        def replace(match: re.Match[str]) -> str:
            originals.append(match.group())
            return f"\ue000{nonce}.{len(originals) - 1}\ue001"

        def escape(text: str) -> str:
            return self._specials.sub(replace, text)

        return escape, originals, re.compile(f"\ue000{nonce}\\.(\\d+)\ue001")


def with_bos(backend: Backend, tokens: list[int]) -> list[int]:
    """Return the tokens, begin-of-sequence in front where the model wants it and it is not there."""
    info = backend.info
    if info.adds_bos and tokens[:1] != [info.bos_token]:
        tokens = [info.bos_token, *tokens]
    if not tokens:
        raise InvalidRequestError("The prompt is empty.", param="prompt")
    return tokens


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON with every string changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, Mapping):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    return value


def _check_arguments(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        for number, call in enumerate(message.tool_calls or ()):
            param = f"messages.{index}.tool_calls.{number}.function.arguments"
            try:
                arguments = json.loads(call.function.arguments)
            except (ValueError, RecursionError):
                arguments = None
            if not isinstance(arguments, dict):
                raise InvalidRequestError(f"{param}: expected the JSON text of an object.", param=param)


def _offered(request: ChatRequest) -> list[Function]:
    """Return the functions that the model gets to see."""
    functions = [tool.function for tool in request.tools or ()]
    choice = request.tool_choice
    if choice is None or choice.type == "auto":
        return functions
    if choice.type == "none":
        return []
    if choice.type == "required":
        if not functions:
            raise InvalidRequestError("A tool is required, but there are no tools.", param="tool_choice")
        return functions
    name = choice.function.name if choice.function else None
    named = [function for function in functions if function.name == name]
    if not named:
        raise InvalidRequestError(
            f"tool_choice names the function {name!r}, which is not in tools.", param="tool_choice"
        )
    return named


@functools.lru_cache(maxsize=32)
def _cached_call_grammar(form: CallFormat, schemas: str, parallel: bool) -> str:  # noqa: FBT001  # a cache key
    return form.grammar([(name, schema) for name, schema in json.loads(schemas)], parallel=parallel)


def _variables(request: ChatRequest) -> Json:
    """Return the variables that a request hands to the template."""
    variables = dict(request.chat_template_kwargs)
    if not all(isinstance(value, str | int | float | None) for value in variables.values()):
        raise InvalidRequestError(
            "chat_template_kwargs: expected texts, numbers and true or false.", param="chat_template_kwargs"
        )
    if any(isinstance(value, str) and len(value) > LONGEST_VARIABLE for value in variables.values()):
        raise InvalidRequestError(
            f"chat_template_kwargs: a text has more than {LONGEST_VARIABLE} characters.", param="chat_template_kwargs"
        )
    if taken := variables.keys() & RESERVED_VARIABLES:
        raise InvalidRequestError(
            f"chat_template_kwargs can't set {', '.join(sorted(taken))}.", param="chat_template_kwargs"
        )
    if isinstance(request.reasoning_effort, str):
        variables.setdefault("reasoning_effort", request.reasoning_effort[:32])
    return variables


def _reserve(request: ChatRequest, context_tokens: int) -> int:
    """Return how many tokens a shortened prompt leaves to the answer."""
    return max(1, min(request.most_tokens or context_tokens // 8, context_tokens // 2))


def answer_grammar(request: ChatRequest | CompletionRequest, backend: Backend) -> Grammar | None:
    """Return the grammar that the whole answer follows, if there is one. Raises InvalidRequestError."""
    if request.grammar is not None:
        return backend.compile_grammar(request.grammar)
    match request.response_format:
        case None:
            return None
        case form if form.type == "text":
            return None
        case form if form.type == "json_object":
            return json_grammar(None, "response_format")
        case form:
            if form.json_schema is None:
                raise InvalidRequestError(
                    "response_format.json_schema is missing.", param="response_format.json_schema"
                )
            param, schema = "response_format.json_schema.schema", form.json_schema.schema_
            grammar = json_grammar(schema, param)
            return backend.compile_grammar(grammar, param) if may_be_ambiguous(schema) else grammar
