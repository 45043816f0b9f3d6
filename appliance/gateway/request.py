"""A client's request, read once: what it needs, who should answer it, and its bytes for whoever does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from appliance.gateway.errors import InvalidRequestError
from appliance.gateway.prefixes import Blocks, blocks_of
from appliance.routing.candidates import AUTO, Policy

PATHS = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/rerank": "rerank",
}
"""Forwarded paths below `/v1`, each with the capability that it needs."""
AGENT_PREFIX = "agent/"
"""`agent/home` as the model asks for what the agent `home` would ask. No expert's name has a slash."""
MAX_QUOTED = 200
"""Characters of a client's text that an error repeats."""
MAX_ROUTED = 4000
"""Characters of the user's words that the router reads."""

_PROMPT_KEYS = ("tools", "messages", "prompt")
"""What a prompt is made of, in the order in which chat templates write it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants."""

    path: str
    """What follows an endpoint's base URL, such as `/chat/completions`."""
    model: str
    policy: Policy
    needs: frozenset[str]
    """Capabilities that the expert must have."""
    streamed: bool
    prompt: bytes
    """The members of the body that the expert reads, as JSON without the braces."""
    blocks: Blocks
    rest: Mapping[str, Any]
    """The other members of the body, without the model's name."""
    text: str
    """The user's latest words, for the router."""

    @property
    def names_an_expert(self) -> bool:
        """Whether the client wants one expert and no other."""
        return self.policy.source == "request" and self.policy.experts != (AUTO,)

    def body(self, model: str) -> bytes:
        """Return the body for an endpoint that calls its model so."""
        rest = to_json({"model": model, **self.rest})
        return b"%b,%b}" % (rest[:-1], self.prompt) if self.prompt else rest


def read_request(path: str, raw: bytes, policies: Mapping[str, Policy]) -> Request:
    """Read a body.

    Args:
        path: see `Request`.
        raw: the body's bytes.
        policies: by what a request may give as its model instead of an expert's name; `auto` is one.

    Raises:
        InvalidRequestError: the body is not what it must be.
    """
    try:
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    model = body.pop("model", AUTO)
    if not isinstance(model, str):
        raise InvalidRequestError("'model' must be a string: an expert's name or 'auto'.")
    needs = {PATHS[path]}
    if body.get("tools"):
        needs.add("tools")
    if _has_image(body.get("messages")):
        needs.add("vision")
    text = _latest_words(body)
    members = {key: body.pop(key) for key in _PROMPT_KEYS if key in body}
    prompt = to_json(members)[1:-1] if members else b""
    return Request(
        path=path,
        model=model,
        policy=_policy(model, policies),
        needs=frozenset(needs),
        streamed=body.get("stream") is True,
        prompt=prompt,
        blocks=blocks_of(prompt),
        rest=body,
        text=text,
    )


def _policy(model: str, policies: Mapping[str, Policy]) -> Policy:
    if model in policies:
        return policies[model]
    standard = policies[AUTO]
    return Policy(experts=(model,), fallbacks=standard.fallbacks, always_on=standard.always_on)


def _has_image(messages: object) -> bool:
    return any(
        isinstance(part, dict) and part.get("type") == "image_url"
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _latest_words(body: Mapping[str, Any]) -> str:
    """Return what the user said last: the last user message's text, or the end of a bare prompt."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return prompt[-MAX_ROUTED:]
    messages = body.get("messages")
    for message in reversed(messages) if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return "\n".join(text for text in texts if isinstance(text, str))[:MAX_ROUTED]
    return ""
