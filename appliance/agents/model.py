"""A client of the gateway's chat completions, streamed.

Protocol: https://platform.openai.com/docs/api-reference/chat/streaming
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
from pydantic import ValidationError

from appliance.agents.errors import ModelError
from appliance.bus.messages import FailureCode, Origin, ToolCall

_CODES: Mapping[int, FailureCode] = {400: "invalid_request", 413: "invalid_request", 429: "overloaded"}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of the answer."""

    reason: Literal["stop", "length", "tool_calls"]
    tool_calls: tuple[ToolCall, ...]
    expert: str
    prompt_tokens: int
    completion_tokens: int
    origin: Origin | None = None


@dataclass(slots=True)
class _PartialCall:
    """A tool call whose arguments arrive in pieces."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all pieces of the arguments are there; none at all may be the beginning of some."""
        try:
            json.loads("".join(self.arguments))
        except (ValueError, RecursionError):
            return False
        return True

    def whole(self) -> ToolCall:
        try:
            return ToolCall(id=self.id, name=self.name, arguments=json.loads("".join(self.arguments) or "{}"))
        except (ValueError, RecursionError) as error:
            raise ModelError(
                "model_error", f"The model called {self.name!r} with arguments that are no JSON."
            ) from error


class ModelClient:
    """Asks the gateway."""

    def __init__(self, *, http: aiohttp.ClientSession, url: str, api_key: str, model: str = "auto") -> None:
        """Take the gateway's base URL, which ends in `/v1`, its key, and what to ask it for."""
        self._http = http
        self._model = model
        self._url = f"{url}/chat/completions"
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def stream(self, body: Mapping[str, Any], *, cache_key: str) -> AsyncGenerator[Text | Finish]:
        """Yield the pieces of the answer, and its end last.

        Requests with the same key begin alike; an expert keeps what it computed for their beginning.

        Raises:
            ModelError: there is no answer, or it broke off.
        """
        request = {
            **body,
            "model": self._model,
            "prompt_cache_key": cache_key,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            async with self._http.post(self._url, json=request, headers=self._headers, timeout=timeout) as response:
                if response.status != 200:
                    raise await _refusal(response)
                expert = response.headers.get("X-Rouse-Expert", self._model)
                async for event in _interpret(_data_lines(response.content), expert):
                    yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ModelError("model_error", "The connection to the model broke.") from error


async def _refusal(response: aiohttp.ClientResponse) -> ModelError:
    try:
        error = (await response.json())["error"]
        code, message = error.get("code"), str(error["message"])
    except (aiohttp.ClientError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        code, message = None, f"The gateway answered HTTP {response.status}."
    if code == "no_expert":
        return ModelError("no_expert", message)
    if response.status == 503:
        return ModelError("overloaded", message)
    return ModelError(_CODES.get(response.status, "model_error"), message)


async def _data_lines(content: aiohttp.StreamReader) -> AsyncIterator[Any]:
    """Yield the JSON of each server-sent event until `[DONE]`."""
    async for line in content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            yield json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ModelError("model_error", "The model's answer could not be read.") from error
    raise ModelError("model_error", "The model's answer broke off.")


async def _interpret(events: AsyncIterator[Any], expert: str) -> AsyncIterator[Text | Finish]:
    calls: dict[int, _PartialCall] = {}
    reason: Literal["stop", "length", "tool_calls"] | None = None
    usage: Mapping[str, int] = {}
    origin: Origin | None = None
    async for event in events:
        if "error" in event:
            raise ModelError("model_error", str(event["error"].get("message", "The model failed.")))
        usage = event.get("usage") or usage
        origin = origin or _origin(event.get("rouse"))
        for choice in event.get("choices", ()):
            delta = choice.get("delta") or {}
            if text := delta.get("content"):
                yield Text(text)
            for piece in delta.get("tool_calls") or ():
                _merge(calls.setdefault(piece.get("index", 0), _PartialCall()), piece)
            reason = choice.get("finish_reason") or reason
    if reason is None:
        raise ModelError("model_error", "The model's answer broke off.")
    whole = [call for _, call in sorted(calls.items())]
    if reason == "length" and whole and not whole[-1].is_complete:
        whole.pop()  # the answer was cut within it
    yield Finish(
        reason=reason,
        tool_calls=tuple(call.whole() for call in whole),
        expert=expert,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        origin=origin,
    )


def _origin(told: object) -> Origin | None:
    try:
        return None if told is None else Origin.model_validate(told)
    except ValidationError:
        return None


def _merge(call: _PartialCall, piece: Mapping[str, Any]) -> None:
    call.id = piece.get("id") or call.id
    function = piece.get("function") or {}
    call.name = function.get("name") or call.name
    call.arguments.append(function.get("arguments") or "")
