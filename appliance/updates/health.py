"""Decides after a boot whether this version works: what was up before the update is up again.

Without an update before it, the units that the machine starts must have come up, and that is all: then a new expert
that does not load yet is no reason to go back.
"""

import json
import logging
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.updates.image import ImagePaths, require_version
from appliance.updates.installing import BEFORE
from appliance.updates.records import Baseline, Before, Failure, read, write

_log = logging.getLogger(__name__)

UNITS = ("rouse-hub.service", "rouse-node.service")
FAILURE = "failure.json"
_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
_MOST_BYTES = 1 << 20

type UnitStates = Callable[[], Mapping[str, str]]
type Get = Callable[[str], Mapping[str, Any] | None]


def unit_states() -> Mapping[str, str]:
    """Return how the machine's units are, those that it starts at all."""
    command = ["systemctl", "show", "--property=Id,LoadState,UnitFileState,ActiveState,Result", *UNITS]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)  # noqa: S603 - a fixed one
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("systemd can't be asked: %s", error)
        return dict.fromkeys(UNITS, "unknown")
    found = {}
    for block in done.stdout.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        state = values.get("ActiveState", "")
        wanted = values.get("UnitFileState") in {"enabled", "enabled-runtime"} or state != "inactive"
        # A machine that is no hub has the hub's unit enabled, which then declines (ExecCondition=).
        declined = state == "inactive" and values.get("Result") == "exec-condition"
        if values.get("LoadState") == "loaded" and wanted and not declined:
            found[values.get("Id", "")] = state
    return found


def get(url: str) -> Mapping[str, Any] | None:
    """Ask a service of this machine how it is; None if it does not say."""
    try:
        # Records allow no other address than loopback, and a proxy is none of its business.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=_ANSWER_SECONDS) as response:
            body = json.loads(response.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except (OSError, ValueError):
        return None
    return body if isinstance(body, dict) else None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Looks until everything is up, or the time is over.

    Attributes:
        paths: where things are.
        seconds: how long to wait.
        on_wait: hears what is waited for.
    """

    paths: ImagePaths
    seconds: float
    on_wait: Callable[[str], None]
    units: UnitStates = unit_states
    ask: Get = get
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> str | None:
        """Return None if this version is healthy, else why not; both are left for others to read."""
        version = require_version(self.paths)
        before = read(self.paths.own / BEFORE, Before)
        baseline = before.baseline if before is not None and before.version == version else Baseline()
        reason = self._wait(baseline)
        if reason is None:
            # It belongs to the first boot after an update; later the user may have changed what there is.
            (self.paths.own / BEFORE).unlink(missing_ok=True)
            self.paths.healthy.parent.mkdir(parents=True, exist_ok=True)
            self.paths.healthy.touch()
        elif self.paths.own.is_dir():
            write(self.paths.own / FAILURE, Failure(version=version, reason=reason[:1000]))
        return reason

    def _wait(self, baseline: Baseline) -> str | None:
        end = self.monotonic() + self.seconds
        while True:
            missing = self._missing(baseline)
            if missing is None:
                return None
            if self.monotonic() >= end:
                return f"{missing}; it was waited for {self.seconds:.0f} s"
            self.on_wait(missing)
            self.sleep(_LOOK_SECONDS)

    def _missing(self, baseline: Baseline) -> str | None:
        """Return the first thing that is not up."""
        for name, state in self.units().items():
            if state != "active":
                return f"{name} is {state}"
        if baseline.gateway is not None and self.ask(baseline.gateway) is None:
            return "the gateway does not answer, and did before the update"
        return self._missing_of_node(baseline, baseline.status) if baseline.status is not None else None

    def _missing_of_node(self, baseline: Baseline, status: str) -> str | None:
        said = self.ask(status)
        if said is None:
            return "the node daemon does not answer, and did before the update"
        experts, broker = said.get("experts"), said.get("broker")
        states = experts if isinstance(experts, dict) else {}
        for name in baseline.experts:
            if states.get(name) != "ready":
                return f"the expert {name} is {states.get(name, 'gone')}, and was ready before the update"
        connected = isinstance(broker, dict) and broker.get("connected") is True
        if baseline.broker and not connected:
            return "the broker is not reached, and was before the update"
        return None
