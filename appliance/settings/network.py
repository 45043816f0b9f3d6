"""How the machine is connected."""

import re
from ipaddress import ip_address, ip_interface
from typing import Self

from pydantic import SecretStr, field_validator, model_validator

from appliance.settings.section import Section, conflict
from appliance.settings.zones import ZonesSettings

_HEX_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_ADDRESS_FORM = "expected an address with its network's length, such as 192.168.1.20/24"


class WifiSettings(Section):
    """The wireless network to join: WPA2 or WPA3 with a passphrase, or an open one."""

    ssid: str | None = None
    """Its name, exactly as your router shows it."""
    psk: SecretStr | None = None
    """Its passphrase, of 8 to 63 characters, or the key itself as 64 hexadecimal digits. Without one the network is
    taken to be open."""
    country: str | None = None
    """Two letters of the country that the machine is in, such as `DE`: they decide which channels may be used."""
    hidden: bool = False
    """Whether the network does not announce its name."""

    @field_validator("ssid")
    @classmethod
    def _check_ssid(cls, ssid: str | None) -> str | None:
        if ssid is not None and not 1 <= len(ssid.encode()) <= 32:
            raise ValueError("expected a name of 1 to 32 bytes")
        return ssid

    @field_validator("psk")
    @classmethod
    def _check_psk(cls, psk: SecretStr | None) -> SecretStr | None:
        if psk is None:
            return None
        text = psk.get_secret_value()
        if _HEX_KEY.fullmatch(text):
            return psk
        if not all(" " <= character <= "~" for character in text):
            raise ValueError("may hold the characters of an English keyboard only, as Wi-Fi passphrases do")
        if not 8 <= len(text) <= 63:
            raise ValueError(f"expected 8 to 63 characters or 64 hexadecimal digits, found {len(text)} characters")
        return psk

    @field_validator("country")
    @classmethod
    def _check_country(cls, country: str | None) -> str | None:
        if country is not None and re.fullmatch("[A-Z]{2}", country) is None:
            raise ValueError("expected two capital letters (ISO 3166), such as DE or US")
        return country

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.ssid is None and (self.psk is not None or self.hidden):
            raise conflict("ssid", "required when the passphrase of a network is set")
        return self


class StaticSettings(Section):
    """A fixed address instead of one that the router gives (DHCP).

    A router that always gives this machine the same address does as well, and needs nothing here.
    """

    address: str | None = None
    """Address and length of the network: `192.168.1.20/24`."""
    gateway: str | None = None
    """The router's address: `192.168.1.1`."""
    dns: tuple[str, ...] = ()
    """Addresses of name servers; the gateway when empty."""
    interface: str | None = None
    """Name of the interface, such as `enp3s0`; when not set, the wireless one where Wi-Fi is set and otherwise the
    wired one."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None:
            try:
                ip_interface(address)
            except ValueError:
                raise ValueError(_ADDRESS_FORM) from None
            if "/" not in address:
                raise ValueError(_ADDRESS_FORM)
        return address

    @field_validator("gateway")
    @classmethod
    def _check_gateway(cls, gateway: str | None) -> str | None:
        return None if gateway is None else _plain(gateway)

    @field_validator("dns")
    @classmethod
    def _check_dns(cls, dns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_plain(server) for server in dns)

    @field_validator("interface")
    @classmethod
    def _check_interface(cls, interface: str | None) -> str | None:
        if interface is not None and re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", interface) is None:
            raise ValueError("expected the name of an interface, such as enp3s0")
        return interface

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.address is None:
            if self.gateway is not None or self.dns or self.interface is not None:
                raise conflict("address", "required when anything else of a fixed address is set")
            return self
        interface = ip_interface(self.address)
        if self.gateway is not None and ip_address(self.gateway) not in interface.network:
            raise conflict("gateway", f"is not in the network {interface.network} of the address")
        return self


class NetworkSettings(Section):
    """How the machine is connected. A cable with DHCP needs nothing here."""

    wifi: WifiSettings = WifiSettings()
    static: StaticSettings = StaticSettings()
    zones: ZonesSettings = ZonesSettings()
    wake_on_lan: bool = True
    """Whether the deploys have network cards with a cable wake the machine when a magic packet comes. It costs a watt
    at most, and a machine that nothing can wake is not put to sleep."""


def _plain(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        raise ValueError("expected an IP address, such as 192.168.1.1") from None
