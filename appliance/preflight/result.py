"""What a check found, and what it means for each role."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from appliance.settings.section import Role

type Verdict = Literal["ok", "warn", "bad", "unknown"]
type Fitness = Literal["fit", "limited", "unfit"]

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Result:
    """One check.

    Attributes:
        id: its name for programs, such as `memory.expert`.
        title: its name for people.
        verdict: how it went; `unknown` where it could not be found out, which counts against no role.
        found: what is there, with units.
        needed: what is needed, and why.
        remedy: what to do where something is wrong.
        unfit: roles that can't be done so.
        limits: roles that can be done less well.
        about: the one role that it is about; None where it is about the machine.
        needs_root: whether root would have found out more.
    """

    id: str
    title: str
    verdict: Verdict
    found: str
    needed: str = ""
    remedy: str = ""
    unfit: tuple[Role, ...] = ()
    limits: tuple[Role, ...] = ()
    about: Role | None = None
    needs_root: bool = False


@dataclass(frozen=True, slots=True)
class RoleFitness:
    """Whether a machine can do a role, and what speaks against it."""

    role: Role
    fitness: Fitness
    reasons: tuple[str, ...]


def judge(results: Sequence[Result]) -> tuple[RoleFitness, ...]:
    """Judge every role by the checks."""
    return tuple(_judge(role, results) for role in ROLES)


def _judge(role: Role, results: Sequence[Result]) -> RoleFitness:
    against = [result for result in results if role in result.unfit]
    limits = [result for result in results if role in result.limits and role not in result.unfit]
    fitness: Fitness = "unfit" if against else "limited" if limits else "fit"
    return RoleFitness(role, fitness, tuple(f"{result.title}: {result.found}" for result in (*against, *limits)))


def amount(number: float) -> str:
    """Write bytes as people read them, by powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit in {"B", "KiB"} or number >= 100 else f"{number:.1f} {unit}"


def listing(names: Iterable[str], most: int = 4) -> str:
    """Join names, the first few of them."""
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
