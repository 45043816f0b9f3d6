"""From a request to the answer of a machine that slept: hub, broker, gateway and node daemon are real processes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from appliance.bus.topics import EXPERT_STATUS, REPAIR_NOTICE, WAKE_HINT
from appliance.bus.waking_messages import WakeHint
from scripts.house.processes import free_port
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.waking.house import House, Listener, Sleeper, clients

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
]

PORT = "port"


@pytest.fixture
def card() -> dict[str, int]:
    """A network card that is a UDP port on loopback."""
    return {PORT: free_port()}


@pytest.fixture
def house(tmp_path: Path, card: dict[str, int]) -> House:
    found = House(tmp_path / "house")
    found.configure(
        "[wake]",
        'addresses = ["127.0.0.1"]',
        f"port = {card[PORT]}",
        "first_retry = 0.5",
        "timeout = 8",
        "again_after = 2",
        '[wake.nodes.attic]\nmacs = ["02:00:00:77:00:01"]',
        f"secureon_file = {json.dumps(str(tmp_path / 'secureon'))}",
        "[recovery]",
        "packet_timeout = 2",
        "grace = 2",
        "[agents.home]",
        'expert = "large"',
    )
    (tmp_path / "secureon").write_text("0a:0b:0c:0d:0e:0f\n")
    return found


@pytest.fixture
async def awake(house: House, card: dict[str, int]) -> AsyncIterator[tuple[Sleeper, Listener, aiohttp.ClientSession]]:
    """A house with one machine that is awake, and clients."""
    sleeper = Sleeper(house, "attic", card=card, secureon="0a0b0c0d0e0f")
    async with house.hub_process(), clients(house) as (listener, http), sleeper.running():
        await sleeper.is_ready(listener)
        yield sleeper, listener, http


type Awake = tuple[Sleeper, Listener, aiohttp.ClientSession]


async def test_a_request_wakes_the_machine_and_gets_its_answer(awake: Awake, house: House) -> None:
    sleeper, listener, http = awake
    await sleeper.goes_to_sleep(listener)
    status, body = await house.chat(http)
    assert status == 200, (body, house.logs())
    assert body["choices"][0]["message"]["content"] == "large"
    assert body["rouse"]["woken"]["node"] == "attic"
    assert body["rouse"]["woken"]["seconds"] > 0
    assert sleeper.told("asked_while_asleep") == 0
    assert sleeper.told("packets") >= 1
    (entry,) = [entry for entry in house.audit() if entry.what == "wake"]
    assert (entry.who, entry.subject, entry.outcome) == ("request", "attic", "woken")


async def test_many_requests_wake_it_once(awake: Awake, house: House) -> None:
    sleeper, listener, http = awake
    await sleeper.goes_to_sleep(listener)
    answers = await asyncio.gather(*(house.chat(http) for _ in range(50)))
    assert [status for status, _ in answers] == [200] * 50, house.logs()
    assert all(body["rouse"]["woken"]["node"] == "attic" for _, body in answers)
    assert sleeper.told("sleeps") == 1
    metrics = await house.metrics(http)
    assert 'rouse_power_wakes_total{cause="request",node="attic",outcome="woken"} 1.0' in metrics
    assert 'rouse_power_joined_wakes_total{node="attic"} 49.0' in metrics
    assert len([entry for entry in house.audit() if entry.what == "wake"]) == 1


async def test_a_hub_that_is_killed_while_a_machine_sleeps_still_knows_what_it_can_do(
    house: House, card: dict[str, int]
) -> None:
    sleeper = Sleeper(house, "attic", card=card, secureon="0a0b0c0d0e0f")
    async with house.hub_process() as hub, clients(house) as (listener, http), sleeper.running():
        await sleeper.is_ready(listener)
        await sleeper.goes_to_sleep(listener)
        await house.kill_hub(hub)
        async with house.hub_process(), clients(house) as (later, _):
            topic = EXPERT_STATUS.at(node="attic", expert="large")
            await house.until(lambda: topic in later.latest, "the expert, in the hub's own words")
            assert later.latest[topic] == listener.latest[topic]
            await house.until(lambda: later.power("attic") == "asleep", "that it sleeps")
            assert later.presence("attic") == "offline"
            status, body = await house.chat(http)
            assert status == 200, (body, house.logs())
            assert body["rouse"]["woken"]["node"] == "attic"
            await house.until(lambda: later.power("attic") == "awake", "that it is awake")
            assert later.presence("attic") == "online"


async def test_a_node_that_returns_while_the_hub_speaks_for_it_has_the_last_word(
    house: House, card: dict[str, int]
) -> None:
    """The hub starts again just when the machine wakes: whatever order their messages have, the truth remains."""
    sleeper = Sleeper(house, "attic", card=card, secureon="0a0b0c0d0e0f", resume_seconds=0)
    async with house.hub_process() as hub, clients(house) as (listener, _), sleeper.running():
        await sleeper.is_ready(listener)
        await sleeper.goes_to_sleep(listener)
        await house.kill_hub(hub)
        async with house.hub_process(), clients(house) as (later, _):
            code, said = await house.rouse("power", "wake", "attic")
            assert code == 0, (said, house.logs())
            await house.until(
                lambda: later.power("attic") == "awake" and later.presence("attic") == "online", "the truth"
            )


async def test_a_command_a_hint_and_the_command_line(awake: Awake, house: House) -> None:
    sleeper, listener, _ = awake
    await sleeper.goes_to_sleep(listener)
    code, said = await house.rouse("power", "wake", "attic", "--reason", "a test")
    assert code == 0, said
    assert said.startswith("attic is awake after ")
    assert listener.power("attic") == "awake"
    code, said = await house.rouse("power", "status", "--json")
    (told,) = json.loads(said)
    assert (told["node"], told["state"], told["experts"]) == ("attic", "awake", ["large"])

    await sleeper.goes_to_sleep(listener)
    await listener.bus.publish(WAKE_HINT, WakeHint(kind="speech", agent="home", area="Kitchen"))
    code, said = await house.rouse("power", "status")
    assert "attic" in said
    assert "asleep" in said, "somebody has just put it to sleep; a hint is no command"

    code, said = await house.rouse("power", "audit", "--json")
    everything = [json.loads(line) for line in said.splitlines()]
    entries = [entry for entry in everything if not entry["what"].startswith("certificate.")]
    assert [(entry["who"], entry["what"], entry["outcome"]) for entry in entries] == [("command", "wake", "woken")]
    assert entries[0]["detail"].startswith("a test: ")


async def test_stay_off_is_heeded_by_requests(awake: Awake, house: House) -> None:
    sleeper, listener, http = awake
    code, said = await house.rouse("power", "stay-off", "attic")
    assert (code, said) == (0, "attic is asleep.\n"), house.logs()
    await house.until(lambda: listener.presence("attic") == "offline", "attic offline")
    status, body = await house.chat(http)
    assert status == 503
    assert "large is on attic, which sleeps and is not to be woken." in body["error"]["message"]
    assert sleeper.told("packets") == 0
    code, said = await house.rouse("power", "wake", "attic")
    assert code == 0, said
    status, _ = await house.chat(http)
    assert status == 200


async def test_a_machine_that_does_not_wake_is_one_clear_error_and_a_repair_notice(
    house: House, card: dict[str, int]
) -> None:
    sleeper = Sleeper(house, "attic", card=card, secureon="0a0b0c0d0e0f", deaf=True)
    async with house.hub_process(), clients(house) as (listener, http), sleeper.running():
        await sleeper.is_ready(listener)
        await sleeper.goes_to_sleep(listener)
        started = time.monotonic()
        status, body = await house.chat(http)
        assert status == 503, house.logs()
        assert time.monotonic() - started >= 8
        assert body["error"]["code"] == "no_expert"
        assert body["error"]["message"].startswith("No expert can answer: Attic does not wake: not back within 8 s of ")
        topic = REPAIR_NOTICE.at(node="attic")
        await house.until(lambda: listener.latest.get(topic) is not None, "a repair notice")
        notice = listener.latest[topic]
        assert notice.problem == "did_not_wake"
        assert [(step.rung, step.outcome) for step in notice.steps] == [("magic_packet", "no_return")]


async def test_unknown_nodes_and_bad_times_are_one_clear_error(awake: Awake, house: House) -> None:
    del awake
    assert await house.rouse("power", "wake", "garage") == (
        1,
        "rouse: there is no node 'garage' on the bus (there are: attic)\n",
    )
    code, said = await house.rouse("power", "stay-awake", "attic", "--until", "teatime")
    assert (code, said.partition(":")[0]) == (1, "rouse")
    assert "expected a time such as 22:30" in said
    code, said = await house.rouse("power", "stay-awake", "attic", "--until", "2h")
    assert (code, said) == (0, "attic is asked to stay awake 2 h 0 min.\n") or "1 h 59 min" in said
    code, said = await house.rouse("power", "recover", "attic")
    assert (code, said) == (1, "rouse: attic is awake; there is nothing to recover\n")
