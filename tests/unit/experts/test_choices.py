"""Several answers, log probabilities, histories that are too long."""

import asyncio
import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from appliance.experts.chat.prompts import ChatPrompts
from appliance.experts.http.requests import ChatRequest, parse
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import Client, serving
from tests.unit.experts.fake_backend import FakeBackend


async def chunks(client: Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with client.session.post(client.url + path, json=body | {"stream": True}) as response:
        text = await response.text()
    assert response.status == 200, text
    events = [event for event in text.split("\n\n") if event]
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


async def test_n_answers_share_the_prompt(client: Client, fake: FakeBackend) -> None:
    status, body = await client.chat("hello", n=3)
    assert status == 200
    assert [(choice["index"], choice["message"]["content"]) for choice in body["choices"]] == [
        (0, "hello"), (1, "hello"), (2, "hello"),
    ]  # fmt: skip
    usage, prompt = body["usage"], len("^user\nhello$\n^assistant\n")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, 15)
    assert body["timings"]["predicted_n"] == 15
    assert len(fake.samplers) == 3


async def test_n_answers_stream_between_one_another(client: Client) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "stream_options": {"include_usage": True}}
    texts: dict[int, str] = defaultdict(str)
    reasons: dict[int, list[str]] = defaultdict(list)
    *deltas, last = await chunks(client, "/v1/chat/completions", body)
    for chunk in deltas:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            reasons[choice["index"]].append(choice["finish_reason"])
    assert texts == {0: "hi", 1: "hi"}
    assert reasons == {0: ["stop"], 1: ["stop"]}
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 4)


async def test_a_failure_of_one_answer_ends_all(client: Client, fake: FakeBackend) -> None:
    fake.fail_when = lambda runs: any(run.position > 40 for run in runs)
    status, body = await client.chat("x" * 30, n=4)
    assert (status, body["error"]["code"]) == (500, "engine_failed")
    await client.idle()


async def test_a_full_queue_takes_none_of_the_answers(settings: EngineSettings) -> None:
    settings = settings.model_copy(update={"slots": 2, "queue_limit": 1})
    fake = FakeBackend(settings, script=lambda _prompt: "x" * 40, token_seconds=0.005)
    async with serving(lambda: fake, settings) as client:
        first = [asyncio.create_task(client.chat("x")) for _ in range(2)]
        async with asyncio.timeout(5):
            while client.scheduler.status().active < 2:
                await asyncio.sleep(0.002)
        status, body = await client.chat("y", n=2)
        assert (status, body["error"]["code"]) == (503, "overloaded")
        assert [status for status, _ in await asyncio.gather(*first)] == [200, 200]
        await client.idle()


async def test_several_prompts(client: Client) -> None:
    status, body = await client.post("/v1/completions", {"prompt": ["ab", "cde"], "n": 2})
    assert status == 200
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [
        (0, "ab"), (1, "ab"), (2, "cde"), (3, "cde"),
    ]  # fmt: skip
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (5, 10)
    _, body = await client.post("/v1/completions", {"prompt": [[97], [98, 99]]})
    assert [choice["text"] for choice in body["choices"]] == ["a", "bc"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a"] * 5}, "n"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1 << 40]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": "a", "n": 3, "best_of": 4}, "best_of"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
    ],
)
async def test_bad_completions_are_named(client: Client, fields: dict[str, Any], param: str) -> None:
    status, body = await client.post("/v1/completions", fields)
    assert (status, body["error"]["param"].split(".")[0]) == (400, param)


async def test_chat_logprobs(client: Client) -> None:
    _, body = await client.chat("é!", logprobs=True, top_logprobs=2)
    content = body["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[0xC3], [0xA9], [33]]
    assert [entry["token"] for entry in content] == ["\ufffd", "\ufffd", "!"]
    assert content[2] | {"bytes": None} == {
        "token": "!",
        "logprob": -0.693147,
        "bytes": None,
        "top_logprobs": [
            {"token": "!", "logprob": -0.693147, "bytes": [33]},
            {"token": "a", "logprob": -1.0, "bytes": [97]},
        ],
    }
    _, body = await client.chat("é!", logprobs=True)
    assert all(entry["top_logprobs"] == [] for entry in body["choices"][0]["logprobs"]["content"])
    _, body = await client.chat("é!")
    assert "logprobs" not in body["choices"][0]


async def test_streamed_logprobs_are_those_of_the_whole(client: Client, fake: FakeBackend) -> None:
    fake.script = lambda _prompt: "one stop two"
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 3, "stop": ["stop"],
    }  # fmt: skip
    _, whole = await client.post("/v1/chat/completions", body)
    streamed = [
        entry
        for chunk in await chunks(client, "/v1/chat/completions", body)
        for entry in (chunk["choices"][0].get("logprobs") or {"content": []})["content"]
    ]
    assert streamed == whole["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in streamed) == whole["choices"][0]["message"]["content"] == "one "


async def test_completion_logprobs(client: Client) -> None:
    _, body = await client.post("/v1/completions", {"prompt": "aé", "logprobs": 2})
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "\ufffd", "\ufffd"]
    assert logprobs["text_offset"] == [0, 1, 1]
    assert logprobs["token_logprobs"] == [-0.693147] * 3
    assert logprobs["top_logprobs"][0] == {"a": -0.693147}
    streamed = await chunks(client, "/v1/completions", {"prompt": "aé", "logprobs": 0})
    assert sum((chunk["choices"][0].get("logprobs") or {"tokens": []})["tokens"] != [] for chunk in streamed) == 2


async def test_logprobs_are_of_the_content_alone(client: Client, fake: FakeBackend) -> None:
    fake.script = lambda _prompt: 'Yes<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    tool = {"type": "function", "function": {"name": "f"}}
    _, body = await client.chat("x", tools=[tool], logprobs=True)
    assert [entry["token"] for entry in body["choices"][0]["logprobs"]["content"]] == ["Y", "e", "s"]


def long_history(turns: int) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "s" * 20}]
    for turn in range(turns):
        messages += [{"role": "user", "content": f"q{turn:02}"}, {"role": "assistant", "content": "a" * 30}]
    return [*messages, {"role": "user", "content": "last"}]


async def test_a_long_history_loses_its_middle_when_asked(client: Client, fake: FakeBackend) -> None:
    body: dict[str, Any] = {"messages": long_history(12), "max_tokens": 4}
    status, refused = await client.post("/v1/chat/completions", body)
    assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
    status, answer = await client.post("/v1/chat/completions", body | {"truncation": "auto"})
    assert status == 200
    dropped = answer["timings"]["dropped_messages"]
    assert dropped > 0
    prompt = bytes(token for token in fake.steps[0][0].tokens if token < 256).decode()
    assert prompt.startswith("system\n" + "s" * 20 + "\nuser\nq00")
    assert answer["usage"]["prompt_tokens"] <= 512 - 4
    *_, last = await chunks(client, "/v1/chat/completions", body | {"truncation": "auto"})
    assert last["timings"]["dropped_messages"] == dropped


async def test_a_last_message_that_is_too_long_is_refused_all_the_same(client: Client) -> None:
    messages = [*long_history(2), {"role": "user", "content": "x" * 600}]
    status, body = await client.post("/v1/chat/completions", {"messages": messages, "truncation": "auto"})
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_the_setting_shortens_unless_the_request_says_otherwise(settings: EngineSettings) -> None:
    settings = settings.model_copy(update={"truncation": "auto"})
    async with serving(lambda: FakeBackend(settings), settings) as client:
        body = {"messages": long_history(12), "max_tokens": 4}
        assert (await client.post("/v1/chat/completions", body))[0] == 200
        assert (await client.post("/v1/chat/completions", body | {"truncation": "disabled"}))[0] == 400
        status, short = await client.chat("x")
        assert (status, "dropped_messages" in short["timings"]) == (200, False)


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


async def test_thoughts_stand_apart(client: Client, fake: FakeBackend) -> None:
    fake.info = replace(fake.info, chat_template=THINKING)
    fake.script = lambda prompt: "Yes." if "</think>" in prompt else "<think>\nHm.\n</think>\n\nYes."
    _, body = await client.chat("x")
    message = body["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes.")
    _, body = await client.chat("x", reasoning_format="none")
    assert body["choices"][0]["message"]["content"].startswith("<think>")
    _, body = await client.chat("x", chat_template_kwargs={"enable_thinking": False})
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Yes."}
    streamed = await chunks(client, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes."


async def test_calls_are_written_where_the_template_leaves_them_out(settings: EngineSettings) -> None:
    fake = FakeBackend(settings)
    template = "{{ tools }}<|tool_list_start|>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    fake.info = replace(fake.info, chat_template=template, special_texts=("<|tool_call_start|>",))
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": true, "b": "<|tool_call_start|>"}'}}
    body = {
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "done"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    prepared = ChatPrompts(fake).prepare(
        parse(ChatRequest, json.dumps(body).encode()), context_tokens=4096, truncation="disabled"
    )
    text = bytes(prepared.generation.prompt).decode()
    assert 'assistant: <|tool_call_start|>[f(a=True, b="<|tool_call_start|>")]<|tool_call_end|>' in text
