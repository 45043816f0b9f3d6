"""Which messages are left out when a history is longer than the context.

Kept are all system messages at the beginning, the first exchange while that is possible (it often says what the
conversation is about), and the latest messages. What goes is whole: an exchange is a user's message with everything up
to the next one, so that roles keep taking turns, as many templates demand. Within the last exchange, which agents make
long, a message with tool calls goes together with the tools' results.
"""

from collections.abc import Callable, Sequence

from appliance.experts.http.messages import Message


def shortened(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> list[Message] | None:
    """Return the longest history that fits, of those that drop the oldest first; None if there is none.

    `fits` is asked about 2 + log2(len(messages)) times; a shorter history is taken to need fewer tokens.
    """
    start = next((at for at, message in enumerate(messages) if message.role not in ("system", "developer")), None)
    if start is None:
        return None
    lead = messages[:start]
    *earlier, last = _split(messages[start:], lambda message: message.role == "user")
    head, *steps = _split(last, lambda message: message.role == "assistant")
    middle, more = max(len(earlier) - 1, 0), max(len(steps) - 1, 0)

    def candidate(number: int) -> list[Message]:
        """Return a history, the shorter the larger its number."""
        if number < middle:
            kept = [earlier[0], *earlier[number + 2 :], last]
        elif earlier and number == middle:
            kept = [last]
        else:
            kept = [head, *steps[number - middle - bool(earlier) + 1 :]]
        return [*lead, *(message for group in kept for message in group)]

    low, high = 0, middle + bool(earlier) + more - 1
    if high < 0 or not fits(candidate(high)):
        return None
    while low < high:
        number = (low + high) // 2
        if fits(candidate(number)):
            high = number
        else:
            low = number + 1
    return candidate(low)


def _split(messages: Sequence[Message], begins: Callable[[Message], bool]) -> list[list[Message]]:
    """Return the messages in groups, each of which begins with a message that does."""
    groups: list[list[Message]] = []
    for message in messages:
        if not groups or begins(message):
            groups.append([])
        groups[-1].append(message)
    return groups
