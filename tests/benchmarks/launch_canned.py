"""An expert that answers every request with the same paced stream; prints its URL.

All its bytes are made beforehand, so that it costs little beside the gateway that is measured.
"""

import argparse
import asyncio
import json
import ssl
from pathlib import Path

from aiohttp import web

from appliance.http_server import http_runner
from appliance.security.tls import Identity, server_context


def application(first: float, tokens: int, interval: float) -> web.Application:
    """Return it; the first token comes after `first` seconds, each further one `interval` later."""
    head = _event({"role": "assistant", "content": ""}, None)
    text = _event({"content": " word"}, None)
    end = _event({}, "stop") + b"data: [DONE]\n\n"

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        loop = asyncio.get_running_loop()
        start = loop.time() + first
        await asyncio.sleep(first)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(head + text)
        for number in range(1, tokens):
            await asyncio.sleep(start + number * interval - loop.time())
            await response.write(text)
        await response.write(end)
        return response

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models", lambda _request: _json())
    return app


async def _json() -> web.Response:
    return web.json_response({"object": "list", "data": []})


def _event(delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    body = {"id": "chatcmpl-canned", "object": "chat.completion.chunk", "created": 0, "model": "canned"}
    return b"data: " + json.dumps({**body, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


async def _serve(app: web.Application, context: ssl.SSLContext | None) -> None:
    runner = http_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, ssl_context=context).start()
    scheme = "http" if context is None else "https"
    print(f"{scheme}://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201  # this is its interface
    await asyncio.Event().wait()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=float, default=0.1)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--interval", type=float, default=0.1)
    parser.add_argument("--identity", type=Path, help="folder with chain.pem, key.pem and ca.pem: speak TLS")
    parser.add_argument("--open", action="store_true", help="ask for no certificate of the client")
    found = parser.parse_args()
    context = None
    if (folder := found.identity) is not None:
        context = server_context(Identity(folder / "chain.pem", folder / "key.pem", (folder / "ca.pem").read_text()))
        context.verify_mode = ssl.CERT_NONE if found.open else ssl.CERT_REQUIRED
    asyncio.run(_serve(application(found.first, found.tokens, found.interval), context))


if __name__ == "__main__":
    main()
