"""Operations as data: a machine of which facts are known, and the commands that an operation would run on it."""

from collections.abc import Callable, Mapping
from typing import Any

from pyinfra.api import FileUploadCommand, FunctionCommand, StringCommand
from pyinfra.context import ctx_host, ctx_state

from appliance.settings import Settings
from pyinfra_deploys.inventory import Machine

type Facts = Mapping[Any, Any]
"""Answers by fact."""


class _Data:
    def __init__(self, machine: Machine, *, dry: bool) -> None:
        self.machine = machine
        self.house = (machine,)
        self.dry = dry

    def get(self, name: str, default: object = None) -> object:
        return getattr(self, name, default)


class KnownMachine:
    """Stands in for pyinfra's host: it answers from a table, and nothing else can be asked of it.

    Args:
        facts: answers by fact; a function gets the question's arguments.
        target: how the machine is reached.
        settings: its settings.
    """

    def __init__(self, facts: Facts, *, target: str = "attic", settings: Settings | None = None) -> None:
        self.name = target
        self.data = _Data(Machine(target, "attic", settings or Settings()), dry=False)
        self.connector_data: dict[str, Any] = {}
        self.current_op_hash = "operation"
        self._facts = facts

    def get_fact(self, fact: type, **arguments: Any) -> Any:
        answer = self._facts[fact]
        return answer(**arguments) if callable(answer) else answer

    def noop(self, description: str) -> None:
        """Take what pyinfra would log."""


def commands(machine: KnownMachine, operation: Any, **arguments: Any) -> list[str]:
    """Return what an operation would do on the machine, one line for each command."""
    with ctx_host.use(machine), ctx_state.use(None):
        return [_shown(command) for command in operation._inner(**arguments)]


def asked(machine: KnownMachine, question: Callable[[], Any]) -> Any:
    """Return what a function says about the machine."""
    with ctx_host.use(machine):
        return question()


def _shown(command: Any) -> str:
    if isinstance(command, FileUploadCommand):
        assert not isinstance(command.src, str)
        return f"upload {command.dest}: {command.src.read().decode()!r}"
    if isinstance(command, FunctionCommand):
        return f"call {command.function.__name__}"
    assert isinstance(command, StringCommand)
    stdin = command.connector_arguments.get("_stdin")
    return command.get_raw_value() + (f" < {stdin}" if stdin is not None else "")
