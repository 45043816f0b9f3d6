"""The network of the house's own machines, on top of the one that they are plugged into."""

import re
from ipaddress import ip_interface
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from appliance.settings.section import Section, conflict

_ENDPOINT = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]")


class TailscaleSettings(Section):
    """Tailscale instead of WireGuard between the machines themselves."""

    login_server: str | None = None
    """Control server of your own (Headscale), such as `https://headscale.example.org`; Tailscale's when not set."""
    auth_key_file: Path | None = None
    """File, on the machine that deploys, whose first line is a key that joins machines to the network. Without one,
    log in on the machine itself: `sudo tailscale up`."""
    repository: str = "https://pkgs.tailscale.com/stable/debian"
    """Where Debian packages of Tailscale come from."""
    keyring: Path | None = None
    """File with the repository's signing key, on the machine that deploys. Required, so that nobody trusts a key that
    came from the same place as the packages."""

    @field_validator("login_server", "repository")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and re.fullmatch(r"https?://[A-Za-z0-9.:/_~-]+", url) is None:
            raise ValueError("expected https://host, with a path where there is one")
        return url


class OverlaySettings(Section):
    """How the house's machines reach each other privately, whatever network they are plugged into."""

    kind: Literal["none", "wireguard", "tailscale"] = "none"
    """`wireguard` joins all machines of the configuration folder that say so with each other; `tailscale` leaves that
    to Tailscale."""
    address: str | None = None
    """This machine's address in it, with the network's length: `10.77.0.2/24`. Every machine has one of its own."""
    interface: str = "rouse0"
    """Name of the network interface that is made; Tailscale calls its own `tailscale0`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 51820
    """UDP port of WireGuard."""
    endpoint: str | None = None
    """Name or address by which the other machines reach this one; `deploy.address` or its name when not set."""
    keepalive: Annotated[int, Field(ge=0, le=3600, json_schema_extra={"unit": "seconds"})] = 25
    """How often a silent connection is kept open, which a router in between needs; 0 is never. A sleeping machine sends
    nothing, and is not woken by it."""
    tailscale: TailscaleSettings = TailscaleSettings()

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        try:
            interface = ip_interface(address)
        except ValueError:
            interface = None
        if interface is None or "/" not in address or not interface.network.is_private:
            raise ValueError("expected a private address with its network's length, such as 10.77.0.2/24")
        return str(interface)

    @field_validator("interface")
    @classmethod
    def _check_interface(cls, interface: str) -> str:
        if re.fullmatch(r"[a-z][a-z0-9_-]{0,14}", interface) is None:
            raise ValueError("expected the name of an interface of at most 15 characters, such as rouse0")
        return interface

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and _ENDPOINT.fullmatch(endpoint) is None:
            raise ValueError("expected a name or an address without a port, such as attic.local")
        return endpoint

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.kind == "wireguard" and self.address is None:
            raise conflict("address", "required with WireGuard: an address of its own for this machine")
        return self
