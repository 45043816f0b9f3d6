"""Where a node is told to find the house's broker."""

from urllib.parse import urlsplit

from appliance.pairing.errors import RefusedError
from appliance.security.broker import is_loopback, nodes_host
from appliance.settings.model import Settings


def broker_url_for(settings: Settings, own_address: str, *, nodes_port: int | None) -> str:
    """Return the broker's URL for a node that sees this hub at `own_address`.

    Args:
        settings: the hub's.
        own_address: the hub's address on the way to the node.
        nodes_port: where the embedded broker really listens for nodes; None with an external one, and when it does not.

    Raises:
        RefusedError: nodes can't reach the embedded broker.
    """
    broker = settings.broker
    if settings.pairing.broker_url is not None:
        return settings.pairing.broker_url
    if broker.url is not None:
        if broker.mosquitto_folder is None:
            raise RefusedError(
                "not_possible",
                f"The broker at {broker.url} is not the hub's, which can't make accounts there for nodes. Set "
                "broker.mosquitto_folder where it is a mosquitto beside the hub.",
            )
        return f"mqtts://{_bracketed(_reached(urlsplit(broker.url).hostname or '', own_address))}:{broker.nodes_port}"
    if broker.own == "mosquitto":
        return f"mqtts://{_bracketed(own_address)}:{broker.nodes_port}"
    host = nodes_host(broker)
    if host is None or nodes_port is None or (is_loopback(host) and not is_loopback(own_address)):
        where = host or broker.listen_host
        raise RefusedError(
            "not_possible",
            f"The hub's broker listens on {where} only, where no node reaches it. Set broker.nodes_host.",
        )
    return f"mqtts://{_bracketed(own_address)}:{nodes_port}"


def _reached(host: str, own_address: str) -> str:
    return own_address if is_loopback(host) else host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
