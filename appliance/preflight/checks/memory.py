"""Memory, for each role and for the experts that the settings name."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.preflight.dump import Dump, number
from appliance.preflight.result import Result, amount
from appliance.preflight.wanted import Wanted
from appliance.settings.section import Role

_MIB = 1 << 20
_SHARE = 9, 10
"""What of the memory experts may take; the rest is the system's and the daemon's."""
_NEEDS: tuple[tuple[Role, int, int, str], ...] = (
    ("hub", 900 * _MIB, 1800 * _MIB, "the broker, the gateway and the agents beside the system"),
    ("voice", 900 * _MIB, 1800 * _MIB, "speech recognition and a voice in memory beside the system"),
    ("vision", 1800 * _MIB, 3600 * _MIB, "Frigate, which holds frames of every camera in memory"),
)
"""Least, comfortable, and what for; a little under full sizes, because the kernel keeps a part for itself."""


def read_memory(dump: Dump) -> tuple[int | None, int | None]:
    """Return total and available memory, in bytes."""
    fields = {}
    for line in (dump.file("/proc/meminfo") or "").split("\n"):
        name, _, value = line.partition(":")
        kibibytes = number(value.strip().removesuffix(" kB"))
        if kibibytes is not None and 0 <= kibibytes < 1 << 40:
            fields[name] = kibibytes * 1024
    return fields.get("MemTotal"), fields.get("MemAvailable")


def check_memory(dump: Dump, wanted: Wanted) -> Iterator[Result]:
    """Check the memory for each role."""
    total, available = read_memory(dump)
    if total is None:
        yield Result("memory", "Memory", "unknown", "the kernel does not tell how much memory there is")
        return
    yield from (_role(role, total, least, comfortable, why) for role, least, comfortable, why in _NEEDS)
    yield expert(total, available, wanted)


def _role(role: Role, total: int, least: int, comfortable: int, reason: str) -> Result:
    needed = f"{amount(least)}, better {amount(comfortable)}: {reason}"
    result = Result(f"memory.{role}", f"Memory for {role}", "ok", amount(total), needed, about=role)
    remedy = f"Add memory, or give the role {role} to another machine."
    if total < least:
        return replace(result, verdict="bad", remedy=remedy, unfit=(role,))
    if total < comfortable:
        return replace(result, verdict="warn", remedy=remedy, limits=(role,))
    return result


def expert(total: int, available: int | None, wanted: Wanted) -> Result:
    """Check the memory for the configured experts; without any, say what would fit."""
    usable = total * _SHARE[0] // _SHARE[1]
    free = f", {amount(available)} of it free" if available is not None else ""
    result = Result("memory.expert", "Memory for experts", "ok", f"{amount(total)}{free}", about="expert")
    unlisted = ", ".join(one.name for one in wanted.experts if one.memory is None)
    needs = {one.name: one.memory for one in wanted.experts if one.memory is not None and not one.on_gpu}
    if not needs and unlisted:
        return replace(
            result, verdict="unknown", needed=f"what {unlisted} needs: the catalogue does not know the model"
        )
    if not needs:
        return _catalogue(result, usable, wanted)
    need = sum(needs.values())
    more = f", and what {unlisted} needs, which the catalogue does not tell" if unlisted else ""
    result = replace(result, needed=f"{amount(need)} for {', '.join(needs)}{more}")
    if need > usable:
        remedy = "Choose smaller models, a shorter context or fewer slots, or add memory."
        return replace(result, verdict="bad", remedy=remedy, unfit=("expert",))
    if available is not None and need > available:
        remedy = "Something else uses it now; where that is Rouse itself, all is well."
        return replace(result, verdict="warn", remedy=remedy, limits=("expert",))
    return result


def _catalogue(result: Result, usable: int, wanted: Wanted) -> Result:
    fitting = next((model for model, need in wanted.models_by_memory if need <= usable), None)
    result = replace(result, needed=f"{amount(wanted.smallest)} for the smallest model for chat in the catalogue")
    if fitting is None:
        remedy = "Add memory, or use another machine for experts."
        return replace(result, verdict="bad", remedy=remedy, unfit=("expert",))
    return replace(result, found=f"{result.found}; the largest model that fits is {fitting}")
