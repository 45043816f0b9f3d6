"""Which parts a machine gets, in order. A new part is one line in PARTS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.settings.section import Role
from pyinfra_deploys.appliance.deploy import appliance, services
from pyinfra_deploys.backup.deploy import backup
from pyinfra_deploys.base.deploy import base
from pyinfra_deploys.broker.deploy import broker
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.firewall.deploy import firewall
from pyinfra_deploys.inventory import Machine
from pyinfra_deploys.models.deploy import models
from pyinfra_deploys.monitoring.deploy import monitoring, monitoring_keys
from pyinfra_deploys.overlay.deploy import overlay, overlay_keys
from pyinfra_deploys.power.deploy import power
from pyinfra_deploys.ssh.deploy import ssh
from pyinfra_deploys.users.deploy import users
from pyinfra_deploys.vision.deploy import vision

_ALL: frozenset[Role] = frozenset({"hub", "expert", "voice", "vision"})


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the site.

    Attributes:
        name: what people call it; the name of its folder.
        deploy: its deploy.
        roles: who gets it; everybody otherwise.
    """

    name: str
    deploy: Callable[[], Any]
    roles: frozenset[Role] = _ALL

    def is_for(self, machine: Machine) -> bool:
        """Whether a machine gets it."""
        return machine.any_role or bool(self.roles & set(machine.settings.node.roles))


PARTS: tuple[Part, ...] = (
    Part("base", base),
    Part("users", users),
    Part("ssh", ssh),
    Part("overlay-keys", overlay_keys),
    Part("overlay", overlay),
    Part("firewall", firewall),
    Part("appliance", appliance),
    Part("broker", broker, frozenset({"hub"})),
    Part("models", models),
    Part("power", power),
    Part("monitoring-keys", monitoring_keys),
    Part("monitoring", monitoring),
    Part("vision", vision, frozenset({"vision"})),
    Part("backup", backup),
    Part("services", services),
)


def chosen(names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts of these names, in the site's order; all when there are none.

    Raises:
        DeployError: there is no such part.
    """
    known = [part.name for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        raise DeployError(f"there is no part {unknown[0]!r} (there are: {', '.join(known)})")
    return tuple(part for part in PARTS if not names or part.name in names)
