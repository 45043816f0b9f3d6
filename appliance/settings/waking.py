"""How the hub wakes machines, and what it tries when one does not come back."""

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from appliance.settings.section import Name, Seconds, Section, conflict
from appliance.settings.weekly import Hours

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,252})")


def _check_mac(mac: str) -> str:
    lower = mac.lower().replace("-", ":")
    if _MAC.fullmatch(lower) is None:
        raise ValueError("expected a hardware address such as 52:54:00:12:34:56")
    return lower


def _check_address(address: str) -> str:
    try:
        IPv4Address(address)
    except AddressValueError:
        raise ValueError(f"{address!r}: expected an IPv4 address, such as 192.168.1.255") from None
    return address


Mac = Annotated[str, AfterValidator(_check_mac)]
Address = Annotated[str, AfterValidator(_check_address)]


class WakeNodeSettings(Section):
    """What is special about waking one node."""

    macs: tuple[Mac, ...] = ()
    """Hardware addresses to call, in place of those that the node announces."""
    addresses: tuple[Address, ...] = ()
    """Where to send its magic packets, in place of `wake.addresses`."""
    secureon_file: Path | None = None
    """File whose first line is the SecureOn password of its network card, written as `01:23:45:67:89:ab`. It travels
    in clear in each magic packet: it keeps out accidents, not attackers."""


class WakeSchedule(Section):
    """Times at which machines are to be awake, by the house's clock (`system.time_zone`)."""

    at: Hours
    """When to wake them: `weekdays 06:30`, `sat,sun 08:00`. Of hours such as `daily 06:30-08:00` it is the beginning;
    that they stay awake until the end is said by `power.awake` on each of them."""
    nodes: tuple[Name, ...] = ()
    """Nodes to wake."""
    experts: tuple[Name, ...] = ()
    """Experts that are to be ready; one node that has it is woken for each."""

    @model_validator(mode="after")
    def _check_somebody(self) -> Self:
        if not self.nodes and not self.experts:
            raise conflict("nodes", "name nodes or experts to wake")
        return self


class WakeSettings(Section):
    """How the hub wakes nodes that sleep; see docs/power.md."""

    enabled: bool = True
    """Whether to wake nodes at all. Without it, an expert whose node sleeps is as good as gone."""
    addresses: tuple[Address, ...] = ()
    """Where to send magic packets. When empty: to the broadcast address of each network that this machine is in, and
    to 255.255.255.255 on each, which also reaches a card that has lost its address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 9
    """UDP port of the packets. Network cards don't look at it; 9 (discard) is what everyone uses."""
    first_retry: Seconds = 2.0
    """How soon a packet is repeated when nothing comes back; the pause doubles each time. A machine that is just
    falling asleep misses the first."""
    last_retry: Seconds = 20.0
    """The longest pause between packets."""
    timeout: Seconds = 180.0
    """How long a node may take to be back on the bus. From suspend it takes seconds; an old machine that was off needs
    two minutes to start."""
    again_after: Seconds = 60.0
    """For how long a node that did not wake is not called again by requests; a person's command always calls it."""
    forecast_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How likely it must be, by what was asked in earlier weeks, that an expert is asked in an hour: then a node that
    has it is woken and kept awake. 1 never does."""
    forecast_ahead: Seconds = 300.0
    """How long before such an hour a node is woken."""
    schedules: Mapping[Name, WakeSchedule] = Field(default_factory=dict)
    """Times at which machines are to be awake, by a name for the log."""
    nodes: Mapping[Name, WakeNodeSettings] = Field(default_factory=dict)
    """What is special about single nodes, by their names on the bus."""


class IpmiSettings(Section):
    """A node's management controller."""

    host: str | None = None
    """Its address or name; not used when not set."""
    user: str = "ADMIN"
    """Account that may switch the machine's power."""
    password: SecretStr | None = None
    """The account's password; prefer `password_file`."""
    password_file: Path | None = None
    """File whose first line is the password. ipmitool gets it in its environment, never on its command line."""
    interface: Literal["lan", "lanplus"] = "lanplus"
    """`lanplus` (IPMI 2.0) is encrypted; `lan` is for controllers that know nothing newer."""

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str | None) -> str | None:
        if host is not None and _HOST.fullmatch(host) is None:
            raise ValueError("expected an address or a host name")
        return host

    @field_validator("user")
    @classmethod
    def _check_user(cls, user: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9_.@][A-Za-z0-9_.@-]{0,19}", user) is None:
            raise ValueError("expected an account's name of up to 20 letters and digits, as IPMI has it")
        return user

    @model_validator(mode="after")
    def _check_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise conflict("password", "set password or password_file, not both")
        if self.host is not None and self.password is None and self.password_file is None:
            raise conflict("password_file", "required when host is set")
        return self


class RecoveryNodeSettings(Section):
    """The ways to one node beside its network card."""

    ipmi: IpmiSettings = IpmiSettings()
    plug: bool = False
    """Whether Home Assistant has a smart plug for it; which one is chosen in the integration's options."""
    script: Path | None = None
    """A program of yours, by its absolute path, that sends a break or SysRq over a serial console or does whatever
    else brings this machine back. It gets the node's name as its only argument."""

    @field_validator("script")
    @classmethod
    def _check_script(cls, script: Path | None) -> Path | None:
        if script is not None and not script.is_absolute():
            raise ValueError("expected an absolute path")
        return script


class RecoverySettings(Section):
    """What is tried, in order, when a node that should be there is missing: magic packet, IPMI, plug, script."""

    enabled: bool = True
    """Whether to try by itself. Packets and a notice in Home Assistant cost nothing; what switches a machine's power
    must be set for each node below."""
    grace: Seconds = 180.0
    """How long a node that vanished without goodbye may take to come back by itself: a restart takes two minutes."""
    packet_timeout: Seconds = 60.0
    """How long to wait for a node's return after the magic packets of the ladder."""
    power_timeout: Seconds = 240.0
    """How long to wait for a node's return after its power was switched: it starts from the beginning."""
    script_timeout: Seconds = 60.0
    """How long the script may run; then it is ended."""
    plug_confirm_timeout: Seconds = 60.0
    """How long Home Assistant may take to say that the plug was switched."""
    cycles_per_day: Annotated[int, Field(ge=0, le=24)] = 3
    """How often the power of one machine may be switched by the ladder in 24 hours. A machine that is broken stays
    broken, and switching wears it out."""
    again_after: Seconds = 3600.0
    """How long after a ladder that failed another one is begun for the same node; twice as long after each, up to a
    day."""
    nodes: Mapping[Name, RecoveryNodeSettings] = Field(default_factory=dict)
    """The ways to single nodes, by their names on the bus."""
