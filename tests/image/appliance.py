"""Rouse inside a machine: asked over OpenAI's API from outside, and over MQTT from inside."""

import asyncio
import json
import time
from typing import Any

import aiohttp

from image_build.machine import Machine

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
GATEWAY_PORT = 8100
GATEWAY_KEY = "/var/lib/rouse/secrets/hub/gateway.key"
CONFIGURATION = f"""
[node]
name = "attic"
roles = ["hub", "expert"]

[gateway]
host = "0.0.0.0"

[experts.small]
model = "{MODEL}"
context = 2048
slots = 1
# Threads that wait for one another are very slow where both are emulated.
threads = 1
"""
# Subscribes with the appliance's own account, and prints what is retained.
_LISTEN = """
import json, paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.username_pw_set("rouse", open("/var/lib/rouse/secrets/bus/broker-rouse.password").read().strip())
client.on_connect = lambda *_: client.subscribe("rouse/v1/nodes/#")
client.on_message = lambda _, __, message: print(message.topic, message.payload.decode(), flush=True)
client.connect("127.0.0.1", 1883)
client.loop_start()
import time; time.sleep(5)
"""


async def answered(machine: Machine, port: int, seconds: float) -> tuple[str, float]:
    """Ask the gateway until it answers; return the answer, and after how many seconds it came."""
    started = time.monotonic()
    key = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(900)) as http:
        while True:
            try:
                key = key or (await machine.run(f"cat {GATEWAY_KEY} 2> /dev/null || true")).strip()
                answer = await _ask(http, port, key)
            except (aiohttp.ClientError, TimeoutError) as error:
                answer = {"error": str(error)}
            if "choices" in answer:
                return str(answer["choices"][0]["message"]["content"]), time.monotonic() - started
            if time.monotonic() - started > seconds:
                logs = await machine.run("journalctl -u rouse-hub -u rouse-node -n 40 --no-pager", check=False)
                raise AssertionError(f"no answer within {seconds:.0f} s: {json.dumps(answer)[:500]}\n{logs}")
            await asyncio.sleep(2)


async def _ask(http: aiohttp.ClientSession, port: int, key: str) -> dict[str, Any]:
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": "Count: one, two, three,"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        return found


async def retained(machine: Machine) -> dict[str, Any]:
    """Return what the broker keeps of the nodes: topic and message."""
    said = await machine.run(f"/usr/lib/rouse/bin/python - <<'END'\n{_LISTEN}END", 90)
    found: dict[str, Any] = {}
    for line in said.splitlines():
        topic, _, payload = line.partition(" ")
        if topic.startswith("rouse/v1/nodes/") and payload.startswith("{"):
            found[topic] = json.loads(payload)
    return found
