"""The process that pyinfra runs in: one request on standard input, one event on each line of standard output.

Exit codes: 0 all went well, 1 something failed, 2 the settings or the targets are wrong (standard error says how).
"""

# ruff: noqa: E402 - gevent changes the standard library, and must do so before anything uses it
from gevent import monkey

monkey.patch_all()

import logging
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

from appliance.settings import SettingsError
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.events import Ended, Event, Note, Request
from pyinfra_deploys.inventory import all_machines, machines
from pyinfra_deploys.run import Run, Tell
from pyinfra_deploys.site import chosen

_USUAL = ("connector is in beta", "accepting & adding to host keys file")


class _Notes(logging.Handler):
    """Passes on what pyinfra logs."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if not any(usual in text for usual in _USUAL):
            self._tell(Note(level=record.levelname.lower(), text=text))


def _teller() -> Tell:
    """Return what writes events; anything else that is written to standard output goes to standard error."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(event: Event) -> None:
        events.write(event.model_dump_json() + "\n")

    return tell


def main() -> int:
    """Run the request."""
    tell = _teller()
    logger = logging.getLogger("pyinfra")
    logger.addHandler(_Notes(tell))
    logger.propagate = False
    request = Request.model_validate_json(sys.stdin.read())
    config_dir = Path(request.config_dir)
    hostname = socket.gethostname()
    try:
        found = machines(config_dir, request.targets, environ=os.environ, hostname=hostname, called=request.called)
        run = Run(
            tuple(replace(machine, any_role=request.any_role) for machine in found),
            house=all_machines(config_dir),
            parts=chosen(request.parts),
            sudo_passwords={name: word.get_secret_value() for name, word in request.sudo_passwords.items()},
            config_dir=config_dir,
            dry=request.dry,
            tell=tell,
        )
    except (DeployError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    succeeded = run.run()
    tell(Ended(succeeded=succeeded))
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
