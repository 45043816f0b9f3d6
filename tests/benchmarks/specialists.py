"""Scripted experts, each a process of its own that speaks OpenAI's API: they solve by rule what they can.

They see the same messages as a model does, and never what the right answer is. Run as
`python -m tests.benchmarks.specialists NAME`; prints its URL.
"""

import argparse
import ast
import asyncio
import json
import re
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

UNABLE = "I can't help with that."


def maths(text: str) -> str:
    """Evaluate the first arithmetic expression, in digits; operators may be words of four languages."""
    folded = text.casefold()
    for words, sign in (
        (r"plus|más|und", "+"),
        (r"minus|moins|menos", "-"),
        (r"times|mal|fois|por|multiplied by", "*"),
        (r"divided by|geteilt durch|divisé par|entre", "/"),
    ):
        folded = re.sub(rf"(?<=\d) ?\b(?:{words})\b ?(?=\d)", sign, folded)
    percent = re.search(r"(\d+) ?% (?:of|von|de) (\d+)", folded)
    if percent:
        return _shown(int(percent[1]) * int(percent[2]) / 100)
    found = max(re.findall(r"[\d(][\d\s+*/().-]*[\d)]", folded), key=len, default="")
    if not re.search(r"\d\s*[-+*/]", found):
        return UNABLE
    try:
        return _shown(_value(ast.parse(found.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError):
        return UNABLE


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _value(left), _value(right)
            match op:
                case ast.Add():
                    return one + other
                case ast.Sub():
                    return one - other
                case ast.Mult():
                    return one * other
                case ast.Div():
                    return one / other
    raise ValueError("not arithmetic")


def _shown(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def extraction(text: str) -> str:
    """Take the first e-mail address, date or amount out of the text."""
    for key, pattern in (
        ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
        ("date", r"\d{4}-\d{2}-\d{2}"),
        ("amount", r"\d+\.\d{2}"),
    ):
        found = re.search(pattern, text)
        if found:
            return json.dumps({key: float(found[0]) if key == "amount" else found[0]})
    return UNABLE


ROOMS = {
    "kitchen": r"kitchen|küche|cuisine|cocina",
    "bedroom": r"bedroom|schlafzimmer|chambre|dormitorio",
    "living_room": r"living room|wohnzimmer|salon|salón",
    "bathroom": r"bathroom|badezimmer|salle de bains?|baño",
}
DEVICES = {
    "light": r"lights?|licht|lumière|luz",
    "heating": r"heating|heizung|chauffage|calefacción",
    "fan": r"fan|ventilator|ventilateur|ventilador",
}
ON = r"\b(turn on|switch on|on|put on|ein|an|allume[rz]?|enciende|encender)\b"
OFF = r"\b(off|aus|ausmachen|éteins|éteindre|apaga|apagar)\b"


def home(text: str) -> str:
    """Turn a command to the house into a tool call."""
    folded = text.casefold()
    room, device = _named(ROOMS, folded), _named(DEVICES, folded)
    degrees = re.search(r"(\d+) (?:degrees|grad|degrés|grados)", folded)
    if room and degrees:
        return json.dumps({"name": "set_temperature", "arguments": {"area": room, "temperature": int(degrees[1])}})
    if room and device and re.search(OFF, folded):
        return json.dumps({"name": "turn_off", "arguments": {"device": device, "area": room}})
    if room and device and re.search(ON, folded):
        return json.dumps({"name": "turn_on", "arguments": {"device": device, "area": room}})
    return UNABLE


def _named(patterns: Mapping[str, str], text: str) -> str | None:
    return next((name for name, pattern in patterns.items() if re.search(rf"\b({pattern})\b", text)), None)


SNIPPETS = (
    (r"revers|umdreht", "def reverse(text):\n    return text[::-1]"),
    (r"factorial", "def factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)"),
    (r"\bsort", "sorted(items)"),
    (r"hello", 'print("Hello, world")'),
    (r"files", "ls -1 | wc -l"),
    (r"function|funktion", "def function():\n    pass"),
)


def coding(text: str) -> str:
    """Look a snippet up, by English and German words."""
    folded = text.casefold()
    table = re.search(r"(?:sql.*\btable|sql.*\bin|tabelle) (\w+)", folded)
    if table and "sql" in folded:
        return f"SELECT COUNT(*) FROM {table[1]};"  # noqa: S608  # said, not run
    return next((snippet for pattern, snippet in SNIPPETS if re.search(pattern, folded)), UNABLE)


SPECIALISTS: Mapping[str, Callable[[str], str]] = {
    "sums": maths,
    "extractor": extraction,
    "house": home,
    "snippets": coding,
}


def application(name: str) -> web.Application:
    """Return a specialist's server."""

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        asked = next(message["content"] for message in reversed(body["messages"]) if message["role"] == "user")
        return web.json_response(completion(name, SPECIALISTS[name](asked), asked))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    return app


def completion(name: str, text: str, asked: str) -> dict[str, Any]:
    """Return OpenAI's object; tokens are words."""
    usage = {"prompt_tokens": len(asked.split()), "completion_tokens": len(text.split())}
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {**usage, "total_tokens": sum(usage.values())},
    }


async def _serve(name: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(name))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201  # this is its interface
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Serve one specialist until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SPECIALISTS)
    asyncio.run(_serve(parser.parse_args().name))


if __name__ == "__main__":
    main()
