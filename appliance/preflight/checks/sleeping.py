"""Sleep and waking: magic packets, suspend to RAM, the machine's own alarm clock.

A card's Wake-on-LAN mode is told to CAP_NET_ADMIN only; for others, drivers keep `power/wakeup` in step with it
(appliance/node/sleeping/wake_on_lan.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from appliance.node.sleeping.wake_on_lan import WAKE_MAGIC, WAKE_MAGICSECURE
from appliance.preflight.checks.network import read_interfaces
from appliance.preflight.dump import Dump, number
from appliance.preflight.result import Result, listing
from appliance.preflight.wanted import Wanted

type State = Literal["armed", "disarmed", "unsupported", "unknown"]

_NOT_SUPPORTED = 95
"""EOPNOTSUPP."""
_WAKEUP: dict[str, State] = {"enabled": "armed", "disabled": "disarmed"}
_MAGIC = WAKE_MAGIC | WAKE_MAGICSECURE
_NEED = "what wakes a sleeping expert when somebody asks it; a hub never sleeps"


@dataclass(frozen=True, slots=True)
class Card:
    """Whether a card with a cable wakes the machine."""

    name: str
    state: State
    asked: bool
    """Whether the driver said it itself."""
    connected: bool = True
    """Whether a cable is in it."""

    @property
    def text(self) -> str:
        """Describe it."""
        return f"{self.name} {self.state}{'' if self.connected else ', without a cable'}"


def read_cards(dump: Dump) -> tuple[Card, ...]:
    """Return every card with a cable."""
    told = dump.json("probe").get("wake_on_lan")
    answers = told if isinstance(told, dict) else {}
    cards = []
    for interface in read_interfaces(dump):
        if interface.wireless:
            continue
        answer = answers.get(interface.name)
        state, asked = _asked(answer if isinstance(answer, dict) else {}), True
        if state is None:
            wakeup = dump.line(f"/sys/class/net/{interface.name}/device/power/wakeup")
            state, asked = _WAKEUP.get(wakeup or "", "unknown"), False
        cards.append(Card(interface.name, state, asked, interface.carrier))
    return tuple(cards)


def _asked(answer: dict[str, object]) -> State | None:
    supported, armed = number(answer.get("supported")), number(answer.get("armed"))
    if supported is not None and armed is not None:
        if armed & _MAGIC:
            return "armed"
        return "disarmed" if supported & _MAGIC else "unsupported"
    return "unsupported" if number(answer.get("error")) == _NOT_SUPPORTED else None


def check_sleeping(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check how the machine sleeps and what wakes it."""
    yield wake_on_lan(read_cards(dump))
    yield states(dump.line("/sys/power/state"), dump.line("/sys/power/mem_sleep"))
    yield alarm(dump)


def wake_on_lan(cards: tuple[Card, ...]) -> Result:
    """Check that a magic packet would wake it."""
    found = listing(card.text for card in cards) or "no card with a cable"
    result = Result("wake.magic-packet", "Wake-on-LAN", "ok", found, f"a card that is armed for magic packets: {_NEED}")
    armed = [card for card in cards if card.state == "armed"]
    if any(card.connected for card in armed):
        return result
    if armed:
        return replace(result, verdict="warn", remedy="Plug the cable in.", limits=("expert",))
    disarmed = [card.name for card in cards if card.state == "disarmed"]
    if disarmed:
        guess = "" if all(card.asked for card in cards) else ", and in the firmware's set-up"
        remedy = f"Arm it: ethtool -s {disarmed[0]} wol g{guess}."
        return replace(result, verdict="warn", remedy=remedy, limits=("expert",))
    remedy = "Have it woken by a smart plug or its own clock, or let it never sleep."
    if any(card.state == "unknown" for card in cards):
        return replace(result, verdict="unknown", remedy="Ask as root: ethtool INTERFACE.", needs_root=True)
    return replace(result, verdict="warn", remedy=remedy, limits=("expert",))


def states(state: str | None, mem_sleep: str | None) -> Result:
    """Check that it can suspend to RAM, and how deep."""
    known = (state or "").split()
    name, title = "sleep.states", "Sleep states"
    needed = "suspend to RAM (deep, S3), from which an expert is back within seconds; a hub never sleeps"
    result = Result(name, title, "ok", f"{state or 'none'}{f'; {mem_sleep}' if mem_sleep else ''}", needed)
    if "mem" not in known:
        found = f"no suspend to RAM ({state or 'the kernel has no sleep states'})"
        remedy = "Let it power off instead (it starts slowly), or never sleep."
        return replace(result, verdict="warn", found=found, remedy=remedy, limits=("expert",))
    kinds = [kind.strip("[]") for kind in (mem_sleep or "").split()]
    if kinds and "deep" not in kinds:
        remedy = (
            "Look for S3 in the firmware's set-up; otherwise it draws more power asleep, and packets may not wake it."
        )
        return replace(result, verdict="warn", found=f"s2idle only ({mem_sleep})", remedy=remedy)
    if kinds and "[deep]" not in (mem_sleep or ""):
        remedy = "Set MemorySleepMode=deep in sleep.conf, or mem_sleep_default=deep on the kernel's command line."
        return replace(result, verdict="warn", found=f"S3 is there, not chosen ({mem_sleep})", remedy=remedy)
    return result


def alarm(dump: Dump) -> Result:
    """Check whether it has a clock that wakes it."""
    clock = dump.line("/sys/class/rtc/rtc0/name")
    result = Result(
        "wake.alarm", "Alarm clock", "ok", clock or "", "a clock that wakes it by schedule, where that is wanted"
    )
    if dump.fact("wakealarm") is None:
        found = f"{clock} has no alarm" if clock else "no real-time clock"
        remedy = "Only power.wake_at and planned waking need it."
        return replace(result, verdict="warn", found=found, remedy=remedy)
    if dump.line("/sys/class/rtc/rtc0/device/power/wakeup") == "disabled":
        return replace(
            result, verdict="warn", found=f"{clock}, its wake-up is off", remedy="Switch it on in the firmware."
        )
    return result
