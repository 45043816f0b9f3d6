"""The report as a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance import durable_files
from appliance.preflight.report import SCHEMA
from appliance.preflight.run import Outcome


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the reports as one JSON object."""
    machines = [outcome.as_json for outcome in outcomes]
    return {"schema": SCHEMA, "good": all(machine["good"] for machine in machines), "machines": machines}


def write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the reports, whole or not at all. They hold no secret.

    Raises:
        OSError: the disk does not take it.
    """
    durable_files.write(path, (json.dumps(document(outcomes), indent=2) + "\n").encode(), mode=0o644)
