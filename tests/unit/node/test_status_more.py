"""What others add to the node's HTTP server."""

import re

import aiohttp
import pytest

from appliance.http_server import process_registry
from appliance.node.status import StatusServer, served


async def test_first_boot_and_more(caplog: pytest.LogCaptureFixture) -> None:
    server = StatusServer(
        node="attic",
        experts=[],
        registry=process_registry(),
        key=None,
        first_boot=lambda: {"state": "bad"},
        more=lambda: {"broker": {"connected": True}},
    )
    caplog.set_level("INFO", logger="appliance.node.status")
    async with served(server.application(), host="127.0.0.1", port=0), aiohttp.ClientSession() as http:
        found = re.search(r"http://\S+", caplog.text)
        assert found is not None
        async with http.get(f"{found[0]}/first-boot") as response:
            assert await response.json() == {"state": "bad"}
        async with http.get(f"{found[0]}/health") as response:
            assert (await response.json())["broker"] == {"connected": True}
