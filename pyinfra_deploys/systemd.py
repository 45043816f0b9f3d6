"""Units: enabled, disabled or masked, in a folder as on a live machine; restarted on live machines only.

pyinfra's own operation asks `systemctl show`, which needs a running manager, so it changes a root file system in a
folder at every run. `systemctl is-enabled` reads the links.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, override

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from pyinfra_deploys.target import has_manager

type UnitState = Literal["enabled", "disabled", "masked"]
type RestartVerb = Literal["restart", "reload", "reload-or-restart", "try-restart"]

_AS_GOOD: Mapping[UnitState, frozenset[str]] = {
    "enabled": frozenset({"enabled", "static", "alias", "indirect", "generated"}),
    "disabled": frozenset({"disabled", "static", "masked", "not-found", "indirect"}),
    "masked": frozenset({"masked"}),
}
_VERBS: Mapping[UnitState, str] = {"enabled": "enable", "disabled": "disable", "masked": "mask"}
_UP = frozenset({"active", "activating", "reloading", "refreshing"})
_PROPERTIES = ("ActiveState", "ConditionResult", "ConditionTimestampMonotonic", "Type", "Result", "ExecMainStatus")


class UnitFileState(FactBase[str]):
    """What `systemctl is-enabled` says about a unit: it works without a running manager."""

    @override
    def command(self, unit: str) -> StringCommand:
        return StringCommand("systemctl", "is-enabled", QuoteString(unit), "2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> str:
        return output[0].strip()

    @override
    @staticmethod
    def default() -> str:
        return "not-found"


class UnitStatus(FactBase[Mapping[str, str]]):
    """What the running manager knows about a unit."""

    @override
    def command(self, unit: str) -> StringCommand:
        return StringCommand("systemctl", "show", "--property", ",".join(_PROPERTIES), QuoteString(unit))

    @override
    def process(self, output: list[str]) -> dict[str, str]:
        return dict(line.split("=", 1) for line in output if "=" in line)

    @override
    @staticmethod
    def default() -> Mapping[str, str]:
        return {}


@operation()
def unit_file(unit: str, state: UnitState) -> Generator[StringCommand]:
    """Have a unit enabled, disabled or masked."""
    found = host.get_fact(UnitFileState, unit=unit)
    if found in _AS_GOOD[state]:
        host.noop(f"{unit} is {found}")
        return
    if found == "masked" and state == "enabled":
        yield StringCommand("systemctl", "--quiet", "unmask", unit)
    yield StringCommand("systemctl", "--quiet", _VERBS[state], unit)


def enabled(unit: str) -> OperationMeta:
    """Have a unit started at boot."""
    return unit_file(name=f"Enable {unit}", unit=unit, state="enabled")


def disabled(unit: str) -> OperationMeta:
    """Have a unit not started at boot."""
    return unit_file(name=f"Disable {unit}", unit=unit, state="disabled")


def masked(unit: str) -> OperationMeta:
    """Have a unit that nothing can start."""
    return unit_file(name=f"Mask {unit}", unit=unit, state="masked")


@operation()
def started(unit: str, changed: Sequence[Any], verb: RestartVerb) -> Generator[StringCommand]:
    """Have a unit run on a live machine, and take what was changed for it."""
    did = any(did_change(one) for one in changed)
    status = host.get_fact(UnitStatus, unit=unit)
    if did:
        yield StringCommand("systemctl", "daemon-reload")
    if did and status.get("ActiveState") in _UP:
        yield StringCommand("systemctl", verb, unit)
    elif did or needs_start(status):
        yield StringCommand("systemctl", "start", unit)


def needs_start(status: Mapping[str, str]) -> bool:
    """Whether a unit is down and starting it would do something.

    What was not started because its conditions are not met (such as a clock in a container), or has done its one task,
    is as it should be.
    """
    if status.get("ActiveState") in _UP:
        return False
    tried = status.get("ConditionTimestampMonotonic", "0") != "0"
    if tried and status.get("ConditionResult") == "no":
        return False
    finished = status.get("Type") == "oneshot" and status.get("Result") == "success"
    return not (tried and finished)


def did_change(one: OperationMeta) -> bool:
    """Whether an operation changed something, or would."""
    return bool(one.did_change() if one.is_complete() else one.will_change)


def running(*units: str, changed: Sequence[OperationMeta] = (), verb: RestartVerb = "restart") -> None:
    """Have units run on a live machine; nothing runs in a folder.

    Args:
        units: their names.
        changed: operations that wrote their files; when one of them changed something, units are restarted.
        verb: what is done then.
    """
    if not has_manager():
        return
    for unit in units:
        started(name=f"Run {unit}", unit=unit, changed=tuple(changed), verb=verb)
