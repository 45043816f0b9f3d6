"""What this machine is called on the bus."""

import re
import socket

from appliance.settings.model import NodeSettings


def node_name(settings: NodeSettings, host_name: str | None = None) -> str:
    """Return the set name, or one made of the host name: lower case, with `-` for what a name can't hold."""
    if settings.name is not None:
        return settings.name
    host = (host_name or socket.gethostname()).partition(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", host).strip("-_")[:63] or "node"
