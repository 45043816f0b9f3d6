"""The report on one machine: every check, and what it is good for."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from appliance.preflight.checks.clock import check_clock, skew, told_time
from appliance.preflight.checks.disks import check_disks
from appliance.preflight.checks.graphics import check_graphics
from appliance.preflight.checks.heat import check_heat
from appliance.preflight.checks.memory import check_memory
from appliance.preflight.checks.network import check_network, reach
from appliance.preflight.checks.ports import check_ports
from appliance.preflight.checks.processor import check_processor
from appliance.preflight.checks.sleeping import check_sleeping
from appliance.preflight.checks.storage import check_storage
from appliance.preflight.checks.system import check_system
from appliance.preflight.dump import Dump
from appliance.preflight.result import Result, RoleFitness, judge
from appliance.preflight.wanted import Wanted
from appliance.settings.section import Role

SCHEMA = 1
_LONGEST_TEXT = 400
_CHECKS = (
    check_system,
    check_processor,
    check_memory,
    check_storage,
    check_disks,
    check_clock,
    check_network,
    reach,
    check_sleeping,
    check_ports,
    check_graphics,
    check_heat,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When the machine told its time: between two readings of our clock, in seconds since 1970."""

    earliest: float
    latest: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one machine.

    Attributes:
        host: what it was asked for by.
        name: what it calls itself.
        time: when, in seconds since 1970, by our clock.
        seconds: how long it took.
        results: every check.
        fitness: what they mean for each role.
        wanted: roles that it is to have; None where nobody has said.
    """

    host: str
    name: str
    time: float
    seconds: float
    results: tuple[Result, ...]
    fitness: tuple[RoleFitness, ...]
    wanted: tuple[Role, ...] | None

    @property
    def unfit(self) -> tuple[Role, ...]:
        """Roles that it is to have and can't. Where nobody has said which, it must be good for something."""
        unfit = tuple(one.role for one in self.fitness if one.fitness == "unfit")
        if self.wanted is None:
            return unfit if len(unfit) == len(self.fitness) else ()
        return tuple(role for role in self.wanted if role in unfit)

    @property
    def shown(self) -> tuple[Result, ...]:
        """The checks that matter for the roles that it is to have."""
        asked = self.wanted
        return tuple(one for one in self.results if one.about is None or asked is None or one.about in asked)

    @property
    def summary(self) -> str:
        """One line."""
        bad = [result.title for result in self.shown if result.verdict == "bad"]
        warn = sum(result.verdict == "warn" for result in self.shown)
        shown = self.wanted if self.wanted is not None else tuple(one.role for one in self.fitness)
        roles = ", ".join(f"{one.role} {one.fitness}" for one in self.fitness if one.role in shown)
        troubles = f"; bad: {', '.join(bad)}" if bad else ""
        return f"{roles}{troubles}{f'; {warn} warning{"s" if warn > 1 else ""}' if warn else ''}"

    @property
    def as_json(self) -> dict[str, Any]:
        """The report for programs; `schema` changes when a program must."""
        return {
            "schema": SCHEMA,
            "host": self.host,
            "name": self.name,
            "reached": True,
            "time": self.time,
            "seconds": round(self.seconds, 3),
            "wanted": list(self.wanted) if self.wanted is not None else None,
            "good": not self.unfit,
            "summary": self.summary,
            "roles": {one.role: {"fitness": one.fitness, "reasons": list(one.reasons)} for one in self.fitness},
            "checks": [asdict(result) for result in self.results],
        }


def report_on(dump: Dump, wanted: Wanted, *, host: str, time: float, seconds: float, moment: Moment | None) -> Report:
    """Check a machine by its dump. `moment` is for another machine's clock than our own."""
    results = [result for check in _CHECKS for result in check(dump, wanted)]
    told = told_time(dump)
    if moment is not None and told is not None:
        results.append(skew(told, moment.earliest, moment.latest))
    results = [
        replace(one, found=_line(one.found), needed=_line(one.needed), remedy=_line(one.remedy)) for one in results
    ]
    return Report(
        host=host,
        name=_line(dump.line("/proc/sys/kernel/hostname") or host)[:64],
        time=time,
        seconds=seconds,
        results=tuple(results),
        fitness=judge(results),
        wanted=wanted.roles,
    )


def _line(text: str) -> str:
    """Make a text one line of a sensible length: parts of it are the machine's own words."""
    short = " ".join(text.split())
    return short if len(short) <= _LONGEST_TEXT else f"{short[:_LONGEST_TEXT]}…"


def without_root(results: Sequence[Result]) -> tuple[str, ...]:
    """Return the titles of checks that would know more as root."""
    return tuple(result.title for result in results if result.needs_root)
