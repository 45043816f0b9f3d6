"""How machines find each other and join."""

from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from appliance.settings.section import Port, Section

CodeLifetime = Annotated[float, Field(ge=60, le=3600, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]


class PairingSettings(Section):
    """How a machine that names no broker joins the house; see docs/first-boot.md."""

    port: Port = 8104
    """Port of the pairing door, which is open on a node until it is paired and never afterwards; 0 takes a free one."""
    addresses: tuple[str, ...] = ()
    """This machine's IPv4 addresses by whose networks nodes are announced and looked for (multicast DNS); all but
    loopback when empty."""
    socket: Path = Path("/run/rouse/node/pairing.sock")
    """Where the console of a node that is not paired yet asks for the code. Who may open it may know the code."""
    code_lifetime: CodeLifetime = 600.0
    """How long a code counts. Ten minutes are enough to walk from the machine to the one where it is typed."""
    broker_url: str | None = None
    """On the hub: where nodes are told to find the broker, such as `mqtts://hub.lan:8883`. When not set, it is the
    broker's own address as the node sees it. The broker must show the hub's certificate there."""
    certificate_days: Annotated[int, Field(ge=1, le=3650)] = 365
    """On the hub: how long the certificate of a new node is valid."""

    @field_validator("addresses")
    @classmethod
    def _check_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            try:
                IPv4Address(address)
            except AddressValueError:
                raise ValueError(f"{address!r}: expected an IPv4 address of this machine") from None
        return addresses

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: str | None) -> str | None:
        if url is not None:
            try:
                parts = urlsplit(url)
                good = parts.scheme == "mqtts" and bool(parts.hostname) and parts.port != 0
            except ValueError:
                good = False
            if not good or parts.username or parts.password or parts.path.strip("/"):
                raise ValueError("expected mqtts://host, with :port where it is not 8883")
        return url
