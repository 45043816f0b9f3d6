"""Prompts with a long beginning that several agents share: the description of a house."""

import random

from appliance.benchmark.client import Outcome
from appliance.benchmark.prompts import WORDS

LINES = 166
"""Of about nine tokens each: 1,500 tokens."""
STATES = ("on", "off", "open", "closed", "warm", "cold")

type Messages = list[dict[str, str]]


def prefix(number: int) -> str:
    """Return a text of about 1,500 tokens; each number gives another one from its first words on."""
    chance = random.Random(number)
    lines = (
        f"The {chance.choice(WORDS)} in the {chance.choice(WORDS)} is {chance.choice(STATES)}." for _ in range(LINES)
    )
    return f"You are assistant {number} of a house.\n" + "\n".join(lines)


def conversation(beginning: str, *texts: str) -> Messages:
    """Return the messages of a conversation: the shared beginning, then user and assistant in turn."""
    messages = [{"role": "system", "content": beginning}]
    roles = ("user", "assistant")
    return messages + [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def first_token(outcome: Outcome) -> float:
    """Return the seconds to the first token.

    Raises:
        RuntimeError: there was none.
    """
    if outcome.error or outcome.first_token is None:
        raise RuntimeError(f"{outcome.error}: {outcome.detail}")
    return outcome.first_token
