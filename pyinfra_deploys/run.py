"""Runs the parts of the site on machines with pyinfra, one part after the other, and tells what happens.

pyinfra's own loops stop every machine at every operation until the slowest is there, and number operations alike on
all of them. Here a machine that fails leaves the others alone; they meet between parts only.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from paramiko import SSHException
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import disconnect_all
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateOperationHostData, StateStage
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_host, ctx_inventory, ctx_state

from appliance.settings import SettingsError
from pyinfra_deploys.connection import Chroot, Local, Ssh, ssh_data
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.events import Connected, Event, OperationDone, Outcome, PartBegun, PartFailed
from pyinfra_deploys.inventory import ROLES, Machine
from pyinfra_deploys.own_file import with_own_file
from pyinfra_deploys.reach import WHY
from pyinfra_deploys.site import Part

type Tell = Callable[[Event], None]

_SAID_LINES = 20


class _State(State):
    """Remembers each machine's own names of operations: pyinfra's are by position, for all machines together."""

    def __init__(self, inventory: Inventory) -> None:
        self.titles: dict[tuple[str, str], str] = {}
        super().__init__(inventory, Config())

    def set_op_data_for_host(self, host: Host, op_hash: str, op_data: StateOperationHostData) -> None:
        """Take the name as well."""
        super().set_op_data_for_host(host, op_hash, op_data)
        self.titles[host.name, op_hash] = op_data.global_arguments.get("name") or "(an operation without a name)"


class Run:
    """One run.

    Args:
        machines: what is to be converged.
        house: every machine that is known.
        parts: what they get, in order.
        sudo_passwords: by target.
        config_dir: folder of the settings.
        dry: only look what would change.
        tell: gets every event.
    """

    def __init__(
        self,
        machines: Sequence[Machine],
        *,
        house: Sequence[Machine],
        parts: Sequence[Part],
        sudo_passwords: Mapping[str, str],
        config_dir: Path,
        dry: bool,
        tell: Tell,
    ) -> None:
        self._parts = parts
        self._config_dir = config_dir
        self._dry = dry
        self._tell = tell
        self._failed: set[str] = set()
        self._prepared: dict[str, list[str]] = {}
        common = {"house": tuple(house), "dry": dry, "config_dir": config_dir}
        self._state = _State(_inventory(machines, common, sudo_passwords))

    def run(self) -> bool:
        """Converge the machines; return whether all went well."""
        state = self._state
        with ctx_state.use(state), ctx_inventory.use(state.inventory):
            state.set_stage(StateStage.Connect)
            try:
                self._each(list(state.inventory), lambda host, _: self._connect(host), None)
                state.set_stage(StateStage.Prepare)
                for part in self._parts:
                    self._run_part(part)
            finally:
                disconnect_all(state)
        return not self._failed

    def _run_part(self, part: Part) -> None:
        hosts = [host for host in self._state.inventory if part.is_for(_machine(host))]
        self._state.is_executing = False
        self._each(hosts, self._prepare, part)
        self._state.is_executing = not self._dry
        self._each(hosts, self._report if self._dry else self._execute, part)

    def _each(self, hosts: Sequence[Host], step: Callable[[Host, Any], bool], part: Part | None) -> None:
        """Take a step on all machines at once that have not failed."""
        working = [host for host in hosts if host.name not in self._failed]
        greenlets = [gevent.spawn(step, host, part) for host in working]
        gevent.joinall(greenlets)
        for host, greenlet in zip(working, greenlets, strict=True):
            if greenlet.value is not True or host in self._state.failed_hosts:
                self._failed.add(host.name)

    def _connect(self, host: Host) -> bool:
        error = None
        try:
            host.connect(show_errors=False, raise_exceptions=True)
            self._state.activate_host(host)
            with ctx_host.use(host):
                host.data.machine = with_own_file(_machine(host), self._config_dir)
        except (ConnectError, PyinfraError, DeployError, SettingsError, OSError, SSHException, EOFError) as problem:
            error = str(problem) or type(problem).__name__
        names = tuple(part.name for part in self._parts if part.is_for(_machine(host)))
        self._tell(Connected(machine=host.name, error=error, parts=names))
        return error is None

    def _prepare(self, host: Host, part: Part) -> bool:
        """Ask the machine for what is there; the operations know then what they would do."""
        before = len(host.op_hash_order)
        with ctx_host.use(host), self._failures(part) as failures:
            part.deploy()
        self._prepared[host.name] = host.op_hash_order[before:]
        if host in self._state.failed_hosts and not failures:
            failures.append("the machine can't be looked at")
        if failures:
            self._tell(PartFailed(machine=host.name, part=part.name, text=failures[0]))
            return False
        self._tell(PartBegun(machine=host.name, part=part.name, operations=len(self._prepared[host.name])))
        return True

    @contextmanager
    def _failures(self, part: Part) -> Iterator[list[str]]:
        failures: list[str] = []
        try:
            yield failures
        except (DeployError, PyinfraError, OSError, SSHException, EOFError) as error:
            failures.append(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a mistake in one part must not leave the others unsaid
            traceback.print_exc()
            failures.append(f"a mistake in the part {part.name}: {type(error).__name__}: {error}")

    def _report(self, host: Host, part: Part) -> bool:
        with ctx_host.use(host):
            for op_hash in self._prepared[host.name]:
                would = self._state.get_op_data_for_host(host, op_hash).operation_meta.will_change
                self._tell_operation(host, part, op_hash, "would change" if would else "unchanged")
        return True

    def _execute(self, host: Host, part: Part) -> bool:
        # As long as nothing was changed, what was seen while preparing still counts, and need not be asked again.
        touched = False
        for op_hash in self._prepared[host.name]:
            started = time.monotonic()
            with ctx_host.use(host):
                meta = self._state.get_op_data_for_host(host, op_hash).operation_meta
                if not touched and not meta.will_change:
                    meta.set_complete(True, [], CommandOutput([]))
                    self._tell_operation(host, part, op_hash, "unchanged")
                    continue
                with self._failures(part) as failures:
                    succeeded = run_host_op(self._state, host, op_hash)
            if failures or not succeeded:
                said = failures or [*(meta.stdout_lines + meta.stderr_lines)[-_SAID_LINES:]]
                said += [str(host.connector_data.pop(WHY))] if WHY in host.connector_data else []
                self._tell_operation(host, part, op_hash, "failed", text="\n".join(said))
                return False
            touched = touched or meta.did_change()
            outcome: Outcome = "changed" if meta.did_change() else "unchanged"
            self._tell_operation(host, part, op_hash, outcome, seconds=time.monotonic() - started)
        return True

    def _tell_operation(
        self, host: Host, part: Part, op_hash: str, outcome: Outcome, *, text: str | None = None, seconds: float = 0.0
    ) -> None:
        self._tell(
            OperationDone(
                machine=host.name,
                part=part.name,
                title=self._state.titles[host.name, op_hash],
                outcome=outcome,
                text=text,
                seconds=round(seconds, 3),
                diff=host.connector_data.get("differences", {}).get(op_hash) if outcome != "unchanged" else None,
            )
        )


def _machine(host: Host) -> Machine:
    found: Machine = host.data.machine
    return found


def _inventory(
    machines: Sequence[Machine], common: Mapping[str, object], sudo_passwords: Mapping[str, str]
) -> Inventory:
    names: list[tuple[str, dict[str, Any]]] = []
    for machine in machines:
        data: dict[str, Any] = {**common, "machine": machine}
        password = sudo_passwords.get(machine.target)
        if machine.is_local:
            data |= {"_sudo": machine.needs_sudo, "sudo_password_given": password}
        elif not machine.is_chroot:
            data |= ssh_data(machine.name, machine.settings.deploy, sudo_password=password)
        names.append((machine.target, data))
    groups: dict[str, tuple[list[str], dict[str, object]]] = {
        role: ([machine.target for machine in machines if role in machine.settings.node.roles], {}) for role in ROLES
    }
    inventory = Inventory((names, {}), **groups)
    for host in inventory:
        machine = _machine(host)
        host.connector_cls = Local if machine.is_local else Chroot if machine.is_chroot else Ssh
    return inventory
