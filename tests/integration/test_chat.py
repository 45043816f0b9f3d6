"""The request and reply logic, without Home Assistant around it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_components.rouse import chat
from custom_components.rouse.chat import Event, Inbox, ask
from custom_components.rouse.errors import ChatError
from custom_components.rouse.messages import (
    ChatRequest,
    Reply,
    ReplyFailed,
    ReplyFinished,
    ReplyText,
    ReplyToolCall,
    ReplyUnknown,
    ToolCall,
    UserMessage,
)
from custom_components.rouse.replies import Assembler, Piece

ID = "01JD0000000000000000000001"
REQUEST = ChatRequest(ID, "ha-1", 2e9, "conversation", "en", "", (UserMessage("Hello"),))
CALL = ToolCall("call-1", "HassTurnOn", {"name": "Lamp"})
OTHER_CALL = ToolCall("call-2", "HassTurnOff", {"name": "Fan"})


def text(seq: int, piece: str) -> ReplyText:
    return ReplyText(ID, seq, piece)


def finished(seq: int, whole: str, *calls: ToolCall) -> ReplyFinished:
    return ReplyFinished(ID, seq, whole, calls)


class ScriptedChannel:
    """Does what the test says when the request is sent and each time it is repeated."""

    def __init__(self, *turns: Callable[[Inbox], None]) -> None:
        self.sent = 0
        self.cancelled: list[str] = []
        self.trouble: str | None = None
        self.inbox = Inbox()
        self.open_requests: set[str] = set()
        self._turns = list(turns)

    @contextmanager
    def open(self, request_id: str) -> Iterator[Inbox]:
        self.open_requests.add(request_id)
        try:
            yield self.inbox
        finally:
            self.open_requests.remove(request_id)

    async def send(self, agent: str, request: ChatRequest) -> None:
        self.repeat(agent, request)

    def repeat(self, agent: str, request: ChatRequest) -> None:
        assert (agent, request) == ("home", REQUEST)
        self.sent += 1
        if self._turns:
            self._turns.pop(0)(self.inbox)

    def cancel(self, agent: str, request: ChatRequest) -> None:
        assert agent == "home"
        self.cancelled.append(request.id)


def says(*events: Reply | Event) -> Callable[[Inbox], None]:
    def turn(inbox: Inbox) -> None:
        for event in events:
            inbox.put_nowait(event)

    return turn


async def answer(channel: ScriptedChannel, time_limit: float = 20) -> list[Piece]:
    async with asyncio.timeout(5):
        return [piece async for piece in ask(channel, "home", REQUEST, time_limit=time_limit)]


async def refusal(channel: ScriptedChannel, time_limit: float = 20) -> Any:
    with pytest.raises(ChatError) as caught:
        await answer(channel, time_limit)
    return caught.value.translation_key


async def test_pieces_come_out_as_they_come_in() -> None:
    channel = ScriptedChannel(says(text(0, "The light "), text(1, "is on."), finished(2, "The light is on.")))

    assert await answer(channel) == ["The light ", "is on."]
    assert (channel.sent, channel.cancelled, channel.open_requests) == (1, [], set())


async def test_a_final_message_alone_is_an_answer() -> None:
    channel = ScriptedChannel(says(finished(0, "Yes.", CALL)))

    assert await answer(channel) == ["Yes.", CALL]


@pytest.mark.parametrize(
    ("replies", "pieces"),
    [
        pytest.param([text(0, "a"), text(0, "a"), text(1, "b"), text(0, "a")], ["a", "b"], id="duplicates"),
        pytest.param([text(0, "a"), text(2, "c")], ["a", "bc"], id="gap"),
        pytest.param([text(0, "a"), text(2, "c"), text(1, "b")], ["a", "bc"], id="late"),
        pytest.param([text(1, "b"), text(2, "c")], ["abc"], id="first lost"),
        pytest.param([text(0, "abc")], ["abc"], id="nothing missing"),
        pytest.param([ReplyUnknown(ID, 0, "mood"), text(1, "a")], ["a", "bc"], id="unknown"),
        pytest.param([text(0, ""), text(1, "a")], ["a", "bc"], id="empty piece"),
    ],
)
async def test_the_answer_is_whole_whatever_is_lost(replies: list[Reply], pieces: list[str]) -> None:
    whole = "ab" if pieces == ["a", "b"] else "abc"

    assert await answer(ScriptedChannel(says(*replies, finished(9, whole)))) == pieces


async def test_tool_calls_come_once() -> None:
    call = ReplyToolCall(ID, 0, CALL)
    channel = ScriptedChannel(says(call, ReplyToolCall(ID, 1, CALL), finished(3, "", CALL, OTHER_CALL)))

    assert await answer(channel) == [CALL, OTHER_CALL]


async def test_contradicting_text_is_not_emitted(caplog: pytest.LogCaptureFixture) -> None:
    channel = ScriptedChannel(says(text(0, "Yes"), finished(1, "No.", CALL)))

    assert await answer(channel) == ["Yes"]
    assert "contradicts" in caplog.text


async def test_contradicting_tool_calls_are_not_emitted(caplog: pytest.LogCaptureFixture) -> None:
    channel = ScriptedChannel(says(ReplyToolCall(ID, 0, CALL), finished(1, "", OTHER_CALL)))

    assert await answer(channel) == [CALL]
    assert "contradicts" in caplog.text


@given(st.data())
def test_any_loss_and_repetition_gives_the_same_answer(data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=6))
    stream: list[Reply] = [text(seq, piece) for seq, piece in enumerate(pieces)]
    kept = data.draw(st.lists(st.sampled_from(stream), max_size=12))
    whole = "".join(pieces) + "."
    assembler = Assembler()

    emitted = [piece for reply in kept for piece in assembler.feed(reply)]
    emitted += assembler.feed(finished(len(stream), whole))

    assert "".join(str(piece) for piece in emitted) == whole


@pytest.mark.parametrize(
    ("code", "reason"),
    [("no_expert", "no_expert"), ("overloaded", "overloaded"), ("something_new", "failed")],
)
async def test_failure(code: str, reason: str) -> None:
    channel = ScriptedChannel(says(text(0, "a"), ReplyFailed(ID, 1, code, "Why.")))

    assert await refusal(channel) == reason
    assert channel.cancelled == []


@pytest.mark.parametrize("whole", ["", "  \n"])
async def test_an_empty_answer_is_a_failure(whole: str) -> None:
    assert await refusal(ScriptedChannel(says(finished(0, whole)))) == "empty_answer"


async def test_silence_repeats_the_request_until_time_is_up() -> None:
    channel = ScriptedChannel()

    assert await refusal(channel, time_limit=0.3) == "timed_out"
    assert channel.sent in {2, 3}
    assert channel.cancelled == [ID]
    assert channel.open_requests == set()


async def test_a_lost_final_message_comes_with_the_repetition() -> None:
    channel = ScriptedChannel(says(text(0, "Ye")), says(finished(2, "Yes.")))

    assert await answer(channel, time_limit=0.6) == ["Ye", "s."]
    assert (channel.sent, channel.cancelled) == (2, [])


async def test_a_new_subscription_repeats_the_request() -> None:
    channel = ScriptedChannel(says(Event.RESUBSCRIBED), says(finished(0, "Yes.")))

    assert await answer(channel) == ["Yes."]
    assert channel.sent == 2


async def test_time_up_tells_the_trouble() -> None:
    channel = ScriptedChannel()
    channel.trouble = "mqtt_disconnected"

    assert await refusal(channel, time_limit=0.1) == "mqtt_disconnected"


async def test_a_hub_that_stays_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HUB_GRACE", 0.05)

    channel = ScriptedChannel(says(text(0, "Ye"), Event.HUB_OFFLINE))
    channel.trouble = "hub_offline"

    assert await refusal(channel) == "hub_offline"
    assert channel.cancelled == [ID]


async def test_silence_gives_a_hub_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HUB_GRACE", 0.2)
    monkeypatch.setattr(chat, "MAX_SILENCE", 0.05)
    channel = ScriptedChannel(says(Event.HUB_OFFLINE))
    channel.trouble = "hub_offline"

    assert await refusal(channel) == "hub_offline"
    assert channel.sent > 1


async def test_a_hub_that_went_with_the_broker_has_time_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HUB_GRACE", 0.05)
    channel = ScriptedChannel(
        says(Event.HUB_OFFLINE),
        says(),
        says(Event.RESUBSCRIBED, Event.HUB_ONLINE),
        says(),
        says(finished(0, "Yes.")),
    )
    channel.trouble = "mqtt_disconnected"

    assert await answer(channel) == ["Yes."]
    assert channel.cancelled == []


async def test_a_hub_that_does_not_come_back_with_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HUB_GRACE", 0.05)
    channel = ScriptedChannel(says(Event.HUB_OFFLINE, Event.RESUBSCRIBED))
    channel.trouble = "hub_offline"

    assert await refusal(channel) == "hub_offline"


async def test_a_hub_that_comes_back_is_asked_again() -> None:
    channel = ScriptedChannel(
        says(text(0, "The lamp "), Event.HUB_OFFLINE, Event.HUB_ONLINE),
        # A restarted hub starts over.
        says(text(0, "The "), text(1, "lamp is on."), finished(2, "The lamp is on.")),
    )

    assert await answer(channel) == ["The lamp ", "is on."]
    assert channel.sent == 2


async def test_a_restarted_hub_streams_if_nothing_was_lost_with_it() -> None:
    channel = ScriptedChannel(
        says(Event.HUB_OFFLINE, Event.HUB_ONLINE), says(text(0, "a"), text(1, "b"), finished(2, "ab"))
    )

    assert await answer(channel) == ["a", "b"]


async def test_closing_ends_the_wait() -> None:
    channel = ScriptedChannel(says(Event.CLOSED))

    assert await refusal(channel) == "closed"
    assert channel.cancelled == [ID]


async def test_a_cancelled_listener_cancels_the_request() -> None:
    channel = ScriptedChannel(says(text(0, "a")))
    task = asyncio.create_task(answer(channel))
    await asyncio.sleep(0.01)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert (channel.cancelled, channel.open_requests) == ([ID], set())


async def test_a_listener_that_leaves_cancels_the_request() -> None:
    channel = ScriptedChannel(says(text(0, "a"), text(1, "b")))

    async with aclosing(ask(channel, "home", REQUEST, time_limit=5)) as pieces:
        assert await anext(pieces) == "a"

    assert (channel.cancelled, channel.open_requests) == ([ID], set())
