"""What `rouse deploy` looks at before it changes anything: whether each machine can do its roles."""

import asyncio
import sys
from collections.abc import Mapping

from rich.console import Console

from appliance.cli.command_line import CommandError
from appliance.cli.preflight_table import print_outcome
from appliance.models import catalogue
from appliance.preflight.errors import TargetError
from appliance.preflight.inventory import target_of
from appliance.preflight.run import Machine, Unreached, check_all
from appliance.preflight.target import LOCAL, Target
from appliance.preflight.wanted import wanted_of
from appliance.settings import Settings

_PIPE_WIDTH = 120


def look_at(machines: Mapping[str, Settings]) -> None:
    """Check machines by their targets, and say on standard error what was found.

    A machine that is not reached is left to the deploy, which says so too.

    Raises:
        CommandError: one is unfit for a role that it is to have.
    """
    known = catalogue.load()
    try:
        checked = [
            Machine(
                Target(LOCAL) if target == LOCAL else target_of(target, settings.deploy),
                wanted_of(settings, known, roles=settings.node.roles),
            )
            for target, settings in machines.items()
        ]
    except TargetError as error:
        raise CommandError(f"{error}: set deploy.address") from error
    console = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH, markup=False, highlight=False)
    outcomes = asyncio.run(
        check_all(checked, on_outcome=lambda outcome: print_outcome(console, outcome, brief=True, first=True))
    )
    unfit = [
        f"{outcome.host} as {', '.join(outcome.unfit)}"
        for outcome in outcomes
        if not isinstance(outcome, Unreached) and outcome.unfit
    ]
    if unfit:
        raise CommandError(
            f"unfit: {'; '.join(unfit)}. `rouse preflight HOST` says why; --skip-preflight deploys all the same"
        )
