"""JSON as responses are written."""

import json
from typing import Any

type Json = dict[str, Any]

json_text = json.encoder.encode_basestring_ascii
"""Writes one string."""


def sse(data: Json) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def error_json(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> Json:
    """Return OpenAI's error body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
