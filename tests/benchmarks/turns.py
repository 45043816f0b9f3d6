"""Two agents with different 1,500-token prefixes take turns, ten each: what each turn computes."""

import itertools
from dataclasses import dataclass

import aiohttp

from appliance.benchmark.client import session
from tests.benchmarks.houses import Messages, conversation, prefix
from tests.benchmarks.scenario import Result, Row, Scenario, Setting
from tests.benchmarks.servers import Server, expert

TURNS = 10
TOKENS = 12
SLOTS = 8
BOUNDARY = 4
"""Tokens at the end of an answer that the next prompt may write otherwise: its last one was never put into the cache,
and text that goes through a chat template again can be split at another place."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the server counted."""

    prompt: int
    cached: int
    answer: int
    text: str


async def run(setting: Setting) -> Result:
    """Let the agents talk; what is recomputed is what the turn before had computed and this one had to again."""
    talks = {name: [prefix(number)] for number, name in enumerate(("kitchen", "garden"), start=2000)}
    turns: dict[str, list[Turn]] = {name: [] for name in talks}
    async with session() as http, expert(setting, SLOTS) as server:
        for number in range(TURNS):
            for name, talk in talks.items():
                talk.append(f"Now a sentence about word number {number}.")
                turn = await _ask(http, server, conversation(*talk))
                turns[name].append(turn)
                talk.append(turn.text)
    computed = {name: [turn.prompt - turn.cached for turn in found] for name, found in turns.items()}
    lost = {
        name: [max(0, before.prompt + before.answer - turn.cached) for before, turn in itertools.pairwise(found)]
        for name, found in turns.items()
    }
    setting.say(f"computed in each turn: {computed}")
    again = sum(count > BOUNDARY for found in lost.values() for count in found)
    most = max(count for found in lost.values() for count in found)
    firsts, later = [found[0] for found in computed.values()], max(max(found[1:]) for found in computed.values())
    note = f"at most {most} recomputed tokens at a boundary; first turns {firsts}, later ones at most {later} tokens"
    row = Row("two agents taking turns, ten each: turns that recomputed", float(again), "turns", ("at most", 0.0), note)
    return Result([row], data={"computed_tokens": computed, "recomputed_tokens": lost})


async def _ask(http: aiohttp.ClientSession, server: Server, messages: Messages) -> Turn:
    body = {"messages": messages, "max_tokens": TOKENS, "temperature": 0}
    headers = {"Authorization": f"Bearer {server.target.api_key}"}
    async with http.post(f"{server.target.base}/v1/chat/completions", json=body, headers=headers) as response:
        response.raise_for_status()
        answer = await response.json()
    usage = answer["usage"]
    return Turn(
        usage["prompt_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["completion_tokens"],
        answer["choices"][0]["message"]["content"],
    )


SCENARIO = Scenario("turns", "Two agents taking turns", run)
