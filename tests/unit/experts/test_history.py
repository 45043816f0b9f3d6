from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from appliance.experts.chat.history import shortened
from appliance.experts.http.messages import Message

ROLES = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool"}


def history(shape: str) -> list[Message]:
    messages = []
    for number, letter in enumerate(shape):
        fields = {"role": ROLES[letter], "content": str(number)}
        if letter == "c":
            fields["tool_calls"] = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]  # type: ignore[assignment]
        messages.append(Message.model_validate(fields))
    return messages


def kept(shape: str, room: int) -> str | None:
    messages = shortened(history(shape), lambda fewer: len(fewer) <= room)
    return None if messages is None else "".join(shape[int(message.text)] + message.text for message in messages)


def test_the_middle_goes_first() -> None:
    assert kept("suauauau", 6) == "s0u1a2u5a6u7"
    assert kept("suauauau", 4) == "s0u1a2u7"


def test_then_the_first_exchange_and_then_old_tool_calls() -> None:
    assert kept("suauauau", 3) == "s0u7"
    assert kept("suauctctcta", 6) == "s0u3c8t9a10"
    assert kept("suauctctcta", 3) == "s0u3a10"


def test_what_never_goes() -> None:
    assert kept("suauauau", 1) is None
    assert kept("ss", 1) is None
    assert kept("su", 1) is None


def whole(messages: Sequence[Message]) -> bool:
    """Whether every tool's result follows a call or another result."""
    before = "system"
    for message in messages:
        if message.role == "tool" and before not in ("call", "tool"):
            return False
        before = "call" if message.tool_calls else message.role
    return True


@given(st.lists(st.sampled_from(["u", "a", "ct", "ctt"]), min_size=1, max_size=30), st.integers(1, 40))
def test_calls_and_results_stay_together(groups: list[str], room: int) -> None:
    shape = "su" + "".join(groups)
    messages = history(shape)
    asked: list[int] = []

    def fits(fewer: Sequence[Message]) -> bool:
        asked.append(len(fewer))
        return len(fewer) <= room

    fewer = shortened(messages, fits)
    assert len(asked) <= 8
    if fewer is not None:
        assert len(fewer) <= room
        assert len(fewer) < len(messages)
        assert whole(fewer)
        assert fewer[0] is messages[0]
        assert fewer[-1] is messages[-1]
        assert any(message.role == "user" for message in fewer)
