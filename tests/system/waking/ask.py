"""Asks a gateway many times at once: `python -m tests.system.waking.ask URL KEY_FILE MODEL COUNT` prints what came."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp


async def main(url: str, key: str, model: str, count: int) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello."}]}
    headers = {"Authorization": f"Bearer {key}"}

    async def ask(http: aiohttp.ClientSession) -> object:
        async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
            return {"status": response.status, "body": await response.json()}

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(100)) as http:
        answers = await asyncio.gather(*(ask(http) for _ in range(count)))
        async with http.get(f"{url}/metrics", headers=headers) as response:
            metrics = await response.text()
    print(json.dumps({"answers": answers, "metrics": metrics}))  # noqa: T201 - it is what it is for


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_text().strip(), sys.argv[3], int(sys.argv[4])))
