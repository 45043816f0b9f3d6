"""What root does of an update, each in a unit of its own: install, back, check, worth-a-restart.

It is a program of its own, so that it loads little and knows none of the settings, which others may write.
"""

import logging
import os
import sys

from appliance.notify import ServiceManager
from appliance.updates import kernels
from appliance.updates.errors import UpdateError
from appliance.updates.health import HealthCheck
from appliance.updates.image import ImagePaths, require_version
from appliance.updates.installing import RootPart

HEALTH_VARIABLE = "ROUSE_HEALTH_SECONDS"
DEFAULT_HEALTH_SECONDS = 600.0

_log = logging.getLogger("rouse-update")


def main(arguments: list[str], *, paths: ImagePaths | None = None) -> int:
    """Run one of the commands, and return the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    manager = ServiceManager(os.environ)
    where = paths or ImagePaths()
    part = RootPart(where, lambda share, text: manager.status(f"{share:.3f} {text}"))
    try:
        match arguments:
            case ["install", version]:
                part.install(version)
                _log.info("version %s is installed; it starts next", version)
            case ["back"]:
                _log.info("version %s starts next", part.go_back())
            case ["check"]:
                return _check(where, manager)
            case ["worth-a-restart"]:
                return _worth_a_restart(where)
            case _:
                _log.error("usage: install VERSION | back | check | worth-a-restart")
                return 2
    except UpdateError as error:
        _log.error("%s", error)
        return 1
    return 0


def _check(paths: ImagePaths, manager: ServiceManager) -> int:
    try:
        seconds = float(os.environ.get(HEALTH_VARIABLE, ""))
    except ValueError:
        seconds = DEFAULT_HEALTH_SECONDS
    reason = HealthCheck(paths, seconds, lambda text: manager.status(f"waiting: {text}")).run()
    if reason is None:
        _log.info("this version is healthy")
        return 0
    _log.error("this version is not healthy: %s", reason)
    return 1


def _worth_a_restart(paths: ImagePaths) -> int:
    """Tell by the exit code whether a restart would help (0), as ExecCondition= wants it."""
    if paths.healthy.exists():
        _log.info("this boot is known to be good")
        return 1
    if kernels.restart_helps(kernels.installed(paths.kernels), require_version(paths)):
        _log.warning("this version did not come up healthy; the machine starts again")
        return 0
    _log.warning("this version did not come up healthy, and there is no other to try")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
