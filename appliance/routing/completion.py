"""An answer of any server of OpenAI's API, which is taken for hostile: bounded, and checked before it is used."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from appliance.routing.errors import GenerationError

LARGEST_REPLY = 4 * 1024 * 1024
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """Where an expert is asked: any server of OpenAI's API."""

    name: str
    """Its name in the data set, and for the router."""
    url: str
    """Base URL that ends in `/v1`."""
    model: str
    """What the server calls it."""
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and what it took."""

    text: str
    input_tokens: int
    output_tokens: int


async def complete(
    session: aiohttp.ClientSession,
    source: Source,
    messages: list[dict[str, str]],
    *,
    max_tokens: int,
    grammar: str | None = None,
) -> Said:
    """Ask a chat completion at temperature 0 (https://platform.openai.com/docs/api-reference/chat).

    Raises:
        GenerationError: there is no usable answer.
    """
    body: dict[str, Any] = {
        "model": source.model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    if grammar is not None:
        body["grammar"] = grammar
    headers = {"Authorization": f"Bearer {source.api_key}"} if source.api_key else {}
    try:
        async with session.post(f"{source.url}/chat/completions", json=body, headers=headers) as response:
            data = await _whole(response, source)
            if response.status != 200:
                raise GenerationError(f"{source.name} at {source.url} answered {response.status}: {_start(data)}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise GenerationError(
            f"{source.name} at {source.url} can't be asked: {error or type(error).__name__}"
        ) from None
    try:
        document = json.loads(data)
        message = document["choices"][0]["message"]
        usage = document.get("usage") or {}
        return Said(_text_of(message), int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise GenerationError(f"{source.name} at {source.url} sent no chat completion: {_start(data)}") from None


async def _whole(response: aiohttp.ClientResponse, source: Source) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        data += piece
        if len(data) > LARGEST_REPLY:
            raise GenerationError(f"{source.name} at {source.url} sent more than {LARGEST_REPLY} bytes")
    return bytes(data)


def _text_of(message: dict[str, Any]) -> str:
    """Return what was said; a tool call as the JSON that its score compares."""
    calls = message.get("tool_calls")
    if calls:
        return json.dumps(calls[0]["function"])
    return str(message.get("content") or "")


def _start(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
