"""What is told of a file that can't be used: to its author, the console and HTTP. No secret is in any of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.settings.errors import Problem
from appliance.settings.keys import Group, Leaf, find, keys_of
from appliance.settings.model import Settings
from appliance.settings.phrases import expected

ERRORS_NAME = "rouse-errors.txt"
STATUS_FILE = Path("/run/rouse/first-boot.json")

_EXAMPLES = {
    "node.name": '[node]\nname = "attic"',
    "node.roles": '[node]\nroles = ["expert"]',
    "broker.url": '[broker]\nurl = "mqtt://192.168.1.10"',
    "broker.username": '[broker]\nusername = "rouse"',
    "broker.password": '[broker]\npassword = "the password"',
    "system.time_zone": '[system]\ntime_zone = "Europe/Berlin"',
    "system.hostname": '[system]\nhostname = "attic"',
    "system.locale": '[system]\nlocale = "de_DE.UTF-8"',
    "system.ssh_keys": '[system]\nssh_keys = ["ssh-ed25519 AAAAC3Nza... you@laptop"]',
    "network.wifi.ssid": '[network.wifi]\nssid = "the name of your network"',
    "network.wifi.psk": '[network.wifi]\npsk = "the passphrase of your network"',
    "network.wifi.country": '[network.wifi]\ncountry = "DE"',
    "network.static.address": '[network.static]\naddress = "192.168.1.20/24"',
    "network.static.gateway": '[network.static]\ngateway = "192.168.1.1"',
    "network.static.dns": '[network.static]\ndns = ["192.168.1.1"]',
    "experts.<name>.model": '[experts.small]\nmodel = "model.gguf"',
}
_NOT_TOML = 'Each line is a key, = and a value; text stands in straight quotes: name = "attic"'

State = Literal["none", "good", "bad"]


@dataclass(frozen=True, slots=True)
class Status:
    """How the last reading of the file went."""

    state: State
    problems: tuple[Problem, ...] = ()
    kept: bool = False
    """Whether the machine runs with an earlier file that was good."""

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts and HTTP."""
        return {"state": self.state, "kept": self.kept, "problems": [_as_json(problem) for problem in self.problems]}


def advice(problem: Problem) -> str | None:
    """Say how to write a key right, with an example where there is one."""
    if problem.key is None:
        return _NOT_TOML if problem.text.startswith("not valid TOML") else None
    root = keys_of(Settings)
    path = tuple(problem.key.partition("[")[0].split("."))
    key = find(root, path)
    if not isinstance(key, Leaf):
        return f"There can be: {', '.join(key.keys)}." if isinstance(key, Group) else None
    lines = [f"It takes {expected(key.value_schema)}. {key.description}"]
    names = [".".join(path), *([f"{path[0]}.<name>.{path[-1]}"] if len(path) == 3 else [])]
    lines += [f"Write it like this:\n{_EXAMPLES[name]}" for name in names if name in _EXAMPLES]
    return "\n".join(lines)


def errors_text(status: Status, *, file: str) -> str:
    """Return the text that is put beside the file, with the line endings of Windows."""
    problems = status.problems
    count = "one thing" if len(problems) == 1 else f"{len(problems)} things"
    parts = [
        f"Rouse can't use {file}: {count} to put right.",
        "The machine runs on with the last file that was good."
        if status.kept
        else "The machine runs without these settings.",
        "Correct the file, save it, and start the machine again. This text goes away when all is well.",
    ]
    for number, problem in enumerate(problems, 1):
        parts += ["", f"{number}. {where(problem)}", f"   {problem.text}"]
        told = advice(problem)
        if told is not None:
            parts += [f"   {line}" for line in told.splitlines()]
    return "".join(f"{line}\r\n" for line in parts)


def where(problem: Problem) -> str:
    """Say where a problem is, for a person with an editor: line, column, key."""
    source = problem.source
    parts = [source.file.name if source.file is not None else str(source)]
    parts += [f"line {source.line}"] if source.line is not None else []
    parts += [f"column {problem.column}"] if problem.column is not None else []
    parts += [problem.key] if problem.key is not None else []
    return ", ".join(parts)


def read_status(path: Path = STATUS_FILE) -> dict[str, Any]:
    """Return what `rouse first-boot apply` left for the services and the console."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {"state": "unknown", "kept": False, "problems": []}
    return told if isinstance(told, dict) else {"state": "unknown", "kept": False, "problems": []}


def problems_as_json(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Return problems for scripts."""
    return [_as_json(problem) for problem in problems]


def _as_json(problem: Problem) -> dict[str, Any]:
    return {
        "where": where(problem),
        "line": problem.source.line,
        "column": problem.column,
        "key": problem.key,
        "text": problem.text,
        "advice": advice(problem),
    }
