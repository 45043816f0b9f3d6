"""Prompts with a long beginning that several agents share, as a house's description is."""

import random

from appliance.benchmark.prompts import WORDS

PREFIX_TOKENS = 1500
TEMPLATE_TOKENS = 12

type Messages = list[dict[str, str]]


def prefix(number: int) -> str:
    """Return a text of about 1,500 tokens; each number gives another one from its first word on."""
    chance = random.Random(number)
    return " ".join(chance.choice(WORDS) for _ in range(PREFIX_TOKENS - TEMPLATE_TOKENS))


def conversation(beginning: str, *texts: str) -> Messages:
    """Return the messages of a conversation: the shared beginning, then user and assistant in turn."""
    messages = [{"role": "system", "content": beginning}]
    roles = ("user", "assistant")
    return messages + [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
