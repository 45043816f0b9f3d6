"""Checks machines, several at the same time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.preflight.errors import UnreachedError
from appliance.preflight.gather import SECONDS, gather
from appliance.preflight.report import SCHEMA, Report, report_on
from appliance.preflight.target import Target
from appliance.preflight.wanted import Wanted

AT_ONCE = 16
"""Machines asked at the same time: an SSH client each, and the machines of a house answer within a second."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine to check, and what it is to do."""

    target: Target
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Unreached:
    """A machine of which nothing is known, and why."""

    host: str
    time: float
    error: UnreachedError

    @property
    def summary(self) -> str:
        """One line."""
        return str(self.error)

    @property
    def as_json(self) -> dict[str, Any]:
        """The same form as a report's, as far as there is anything to say."""
        return {
            "schema": SCHEMA,
            "host": self.host,
            "reached": False,
            "time": self.time,
            "good": False,
            "summary": self.summary,
            "error": {"kind": type(self.error).__name__, "message": str(self.error)},
        }


type Outcome = Report | Unreached
type OnOutcome = Callable[[Outcome], None]


async def check(machine: Machine, *, seconds: float = SECONDS) -> Outcome:
    """Check one machine; nothing on it is changed."""
    now = time.time()
    try:
        gathered = await gather(machine.target, machine.wanted, seconds=seconds)
    except UnreachedError as error:
        return Unreached(machine.target.name, now, error)
    return report_on(
        gathered.dump,
        machine.wanted,
        host=machine.target.name,
        time=now,
        seconds=gathered.seconds,
        moment=gathered.moment if machine.target.host is not None else None,
    )


async def check_all(
    machines: Sequence[Machine], *, seconds: float = SECONDS, on_outcome: OnOutcome | None = None
) -> tuple[Outcome, ...]:
    """Check several machines at the same time; the outcomes have the order of the machines.

    Args:
        machines: which, and what they are to do.
        seconds: how long each may take.
        on_outcome: is told of each as soon as it is there.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def one(machine: Machine) -> Outcome:
        async with room:
            outcome = await check(machine, seconds=seconds)
        if on_outcome is not None:
            on_outcome(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(machine), name=f"check {machine.target.name}") for machine in machines]
    return tuple(task.result() for task in tasks)
