"""An answer of any server of OpenAI's API, which is taken for hostile: bounded, and checked before it is used."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from appliance.routing.errors import GenerationError

LARGEST_REPLY = 4 * 1024 * 1024
MOST_TOKENS = 1_000_000_000
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
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise GenerationError(
            f"{source.name} at {source.url} can't be asked: {error or type(error).__name__}"
        ) from None
    try:
        document = json.loads(data)
        text = _text_of(document["choices"][0]["message"])
        text.encode()
        usage = document.get("usage") or {}
        return Said(text, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise GenerationError(
            f"{source.name} at {source.url} sent no chat completion that can be used ({error}): {_start(data)}"
        ) from None


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
    content = message.get("content")
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError("the content is no text")
    return content


def _count(value: Any) -> int:
    """Return a number of tokens; 0 where a server does not tell it."""
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise ValueError("the usage is no number of tokens")
    return value


def _start(data: bytes) -> str:
    return ascii(data[:200].decode("utf-8", "replace"))
