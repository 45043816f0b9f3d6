"""Asks a gateway for a streamed answer, in a process of its own that may run in a network namespace.

Prints one line of JSON: when it asked, when the first piece and the end came (CLOCK_MONOTONIC, seconds), the text, and
what the gateway says about where it came from, and how many tokens of the prompt need not be computed. The request is
on standard input.
"""

import http.client
import json
import sys
import time
from typing import Any


def main() -> None:
    """Ask once."""
    request: dict[str, Any] = json.load(sys.stdin)
    connection = http.client.HTTPConnection(request["host"], request["port"], timeout=request["timeout"])
    told: dict[str, Any] = {"asked": time.monotonic(), "first": None, "text": "", "origin": None, "cached": None}
    headers = {"Authorization": f"Bearer {request['key']}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(request["body"] | {"stream": True}), headers)
    answer = connection.getresponse()
    told["status"] = answer.status
    if answer.status != 200:
        told["text"] = answer.read().decode()
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if (usage := event.get("usage")) is not None:
            told["cached"] = usage["prompt_tokens_details"]["cached_tokens"]
        told["origin"] = event.get("rouse") or told["origin"]
        piece = "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices", ()))
        if piece and told["first"] is None:
            told["first"] = time.monotonic()
        told["text"] += piece
    told["ended"] = time.monotonic()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
