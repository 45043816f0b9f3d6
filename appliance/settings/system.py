"""The machine's own settings: host name, time zone, locale, and who may log in."""

import re
from difflib import get_close_matches
from zoneinfo import available_timezones

from pydantic import SecretStr, field_validator

from appliance.settings.section import Section
from appliance.settings.ssh_keys import check_ssh_key

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LOCALE = re.compile(r"C\.UTF-8|[a-z]{2,3}_[A-Z]{2}\.UTF-8")


_HASH = re.compile(r"\$(6|y|gy|2b)\$[./A-Za-z0-9=,$]{20,200}")
"""crypt(5): SHA-512, yescrypt, gost-yescrypt, bcrypt."""


class SystemSettings(Section):
    """The machine below the services. First boot and deploys apply it, as root."""

    hostname: str | None = None
    """What the machine calls itself in the network; `node.name` when not set."""
    time_zone: str | None = None
    """A name of the IANA time zone database, such as `Europe/Berlin`; UTC when not set."""
    locale: str | None = None
    """Language and country of the system's messages, such as `de_DE.UTF-8`."""
    ssh_keys: tuple[str, ...] = ()
    """Public keys that may log in over SSH as the administrator: the line in `id_ed25519.pub`, one string for each
    key. Nobody may log in when there is none."""
    password_hash: SecretStr | None = None
    """The administrator's password as `openssl passwd -6` or `mkpasswd -m yescrypt` print it, for sudo and at the
    machine's own keyboard; it never opens SSH. When not set, the password stays as it is on the machine."""
    time_servers: tuple[str, ...] = ()
    """Names or addresses of NTP servers; the distribution's when empty."""

    @field_validator("hostname")
    @classmethod
    def _check_hostname(cls, hostname: str | None) -> str | None:
        if hostname is not None and _HOSTNAME.fullmatch(hostname) is None:
            raise ValueError("expected at most 63 letters, digits and -, without - at either end and without dots")
        return hostname

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str | None) -> str | None:
        if name is None or name in (known := available_timezones()):
            return name
        alike = [zone for zone in known if zone.casefold().endswith(name.casefold().replace(" ", "_"))]
        alike = [min(alike)] if alike and name else get_close_matches(name, known, n=1, cutoff=0.8)
        hint = f"; did you mean {alike[0]}?" if alike else ""
        raise ValueError(f"no time zone of that name; expected one such as Europe/Berlin{hint}")

    @field_validator("locale")
    @classmethod
    def _check_locale(cls, locale: str | None) -> str | None:
        if locale is not None and _LOCALE.fullmatch(locale) is None:
            raise ValueError("expected a language and a country such as de_DE.UTF-8, or C.UTF-8")
        return locale

    @field_validator("password_hash")
    @classmethod
    def _check_password_hash(cls, hashed: SecretStr | None) -> SecretStr | None:
        if hashed is not None and _HASH.fullmatch(hashed.get_secret_value()) is None:
            raise ValueError(
                "is not what `openssl passwd -6` or `mkpasswd -m yescrypt` print; never the password itself"
            )
        return hashed

    @field_validator("time_servers")
    @classmethod
    def _check_time_servers(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            if re.fullmatch(r"[A-Za-z0-9.:-]+", server) is None:
                raise ValueError(f"{server!r}: expected a name or an address, such as ptbtime1.ptb.de")
        return servers

    @field_validator("ssh_keys", mode="before")
    @classmethod
    def _split_lines(cls, keys: object) -> object:
        """Take the text of an authorized_keys file as well, which is what people paste."""
        if isinstance(keys, str):
            return tuple(line for line in keys.splitlines() if line.strip() and not line.lstrip().startswith("#"))
        return keys

    @field_validator("ssh_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_ssh_key(key, number) for number, key in enumerate(keys, 1))
