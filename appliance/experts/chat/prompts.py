"""From a chat request to what the engine generates from."""

import functools
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.experts.backend import Backend
from appliance.experts.chat.grammar import call_grammar, json_grammar
from appliance.experts.chat.output import ToolPolicy
from appliance.experts.chat.templates import ChatTemplate
from appliance.experts.chat.tool_calls import OPEN
from appliance.experts.chat.tool_prompt import generic_messages, native_messages
from appliance.experts.errors import InvalidRequestError
from appliance.experts.generation import GenerationRequest
from appliance.experts.http.requests import ChatRequest, Function, Message

type Json = dict[str, Any]


class ChatPrompts:
    """Renders and tokenises chats for one model."""

    def __init__(self, backend: Backend) -> None:
        """Compile the model's template. Raises ModelLoadError."""
        info = backend.info
        self._backend = backend
        self._template = ChatTemplate(info.chat_template, bos=info.bos, eos=info.eos)
        texts = [text for text in (*info.special_texts, info.bos, info.eos) if text]
        self._specials = re.compile("|".join(map(re.escape, sorted(set(texts), key=len, reverse=True))) or "(?!)")

    def generation(self, request: ChatRequest, context_tokens: int) -> GenerationRequest:
        """Return what to generate. Raises InvalidRequestError. Thread-safe; takes milliseconds."""
        _check_arguments(request.messages)
        functions = _offered(request)
        policy = _policy(request, functions)
        grammar = _answer_grammar(request)
        if grammar is not None:
            policy = None
        return GenerationRequest(
            prompt=self.prompt(request.messages, functions, suffix=OPEN if policy and policy.forced else ""),
            max_tokens=request.most_tokens or context_tokens,
            sampling=request.sampling(self._backend.info.vocabulary),
            stops=tuple(request.stop or ()),
            grammar=grammar,
            tools=policy,
        )

    def prompt(self, messages: Sequence[Message], functions: Sequence[Function], *, suffix: str = "") -> list[int]:
        """Render and tokenise a chat.

        Control tokens that stand in a message stay text: nobody can end his turn or open another's from
        within it.
        """
        escape, originals, mark = self._escaping()
        if self._template.native_tools:
            tools = [{"type": "function", "function": function.model_dump()} for function in functions]
            text = self._template.render(_mapped(native_messages(messages), escape), tools=_mapped(tools, escape))
        else:
            text = self._template.render(_mapped(generic_messages(messages, functions), escape))
        tokens: list[int] = []
        for index, part in enumerate(mark.split(text + suffix)):
            plain = index % 2 == 1
            if part:
                tokens += self._backend.tokenize(originals[int(part)] if plain else part, special=not plain)
        return with_bos(self._backend, tokens)

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


def _policy(request: ChatRequest, functions: Sequence[Function]) -> ToolPolicy | None:
    if not functions:
        return None
    forced = request.tool_choice is not None and request.tool_choice.type in ("required", "function")
    schemas = json.dumps([(function.name, function.parameters) for function in functions])
    grammar = _cached_call_grammar(schemas, request.parallel_tool_calls)
    return ToolPolicy(grammar=grammar, forced=forced, parallel=request.parallel_tool_calls)


@functools.lru_cache(maxsize=32)
def _cached_call_grammar(schemas: str, parallel: bool) -> str:  # noqa: FBT001  # a cache key
    return call_grammar([(name, schema) for name, schema in json.loads(schemas)], parallel=parallel)


def _answer_grammar(request: ChatRequest) -> str | None:
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
            return json_grammar(form.json_schema.schema_, "response_format.json_schema.schema")
