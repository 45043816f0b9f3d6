"""Where a node is told to find the house's broker."""

from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from appliance.pairing.errors import RefusedError
from appliance.settings.model import Settings


def broker_url_for(settings: Settings, own_address: str, *, broker_port: int | None) -> str:
    """Return the broker's URL for a node that sees this hub at `own_address`.

    Args:
        settings: the hub's.
        own_address: the hub's address on the way to the node.
        broker_port: where the embedded broker really listens; None with an external one.

    Raises:
        RefusedError: nodes can't reach the embedded broker.
    """
    broker = settings.broker
    if settings.pairing.broker_url is not None:
        return settings.pairing.broker_url
    if broker.url is not None:
        parts = urlsplit(broker.url)
        host = own_address if _is_loopback(parts.hostname or "") else (parts.hostname or "")
        port = f":{parts.port}" if parts.port is not None else ""
        return urlunsplit((parts.scheme, f"{_bracketed(host)}{port}", "", "", ""))
    if _is_loopback(broker.listen_host) and not _is_loopback(own_address):
        raise RefusedError(
            "not_possible",
            f"The hub's broker listens on {broker.listen_host} only, where no node reaches it. Set broker.listen_host.",
        )
    scheme = "mqtts" if broker.listen_cert_file is not None else "mqtt"
    return f"{scheme}://{_bracketed(own_address)}:{broker_port or broker.listen_port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
