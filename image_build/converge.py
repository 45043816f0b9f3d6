"""Runs the deploys of the site on a root file system: the same that converge machines over SSH."""

import sys
from pathlib import Path

from pydantic import ValidationError

from image_build.process import Runner
from pyinfra_deploys.events import EVENT, Connected, OperationDone, PartBegun, PartFailed, Request

SETTINGS = Path(__file__).parent / "files" / "settings"
"""The settings that a machine begins with; its first-boot file is stronger."""
PARTS = ("base", "users", "ssh", "firewall", "appliance", "broker", "power", "services")
"""What every image has. The other parts need a house's settings, and are for `rouse deploy`."""


def converge(root: Path, *, top: Path, runner: Runner) -> None:
    """Bring a root in line with the site, as one that may get any role at its first start.

    Args:
        root: the root file system, with Debian and Rouse in it.
        top: the checkout.
        runner: runs the process that pyinfra is in.

    Raises:
        StepError: a part fails; its reason is in the error.
    """
    request = Request(config_dir=str(SETTINGS), targets=(f"@chroot/{root.resolve()}",), parts=PARTS, any_role=True)
    # The settings of whoever builds are none of the image's.
    runner.run(
        [sys.executable, "-m", "pyinfra_deploys"],
        cwd=top,
        stdin=request.model_dump_json(),
        without_env="ROUSE_",
        shown=_shown,
    )


def _shown(line: str) -> str:
    """Return what an event says to people."""
    try:
        event = EVENT.validate_json(line)
    except ValidationError:
        return line
    match event:
        case Connected(error=str() as error):
            return error
        case PartBegun(part=part, operations=count):
            return f"{part}: {count} operations"
        case PartFailed(part=part, text=text):
            return f"{part}: {text}"
        case OperationDone(part=part, title=title, outcome=outcome, text=text):
            return f"{part}: {title}: {outcome}" + (f"\n{text}" if text else "")
    return ""
