"""How to reach the broker."""

import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from appliance.bus.errors import BusConfigurationError
from appliance.settings.model import BrokerSettings

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and credentials of a broker."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def to_external(cls, settings: BrokerSettings, url: str) -> Self:
        """Build the connection to the broker at `url` with the settings' credentials.

        Raises:
            BusConfigurationError: a file can't be read, or holds no certificate or key.
        """
        parts = urlsplit(url)
        password = settings.password.get_secret_value() if settings.password else None
        try:
            if settings.password_file is not None:
                password = settings.password_file.read_text(encoding="utf-8").splitlines()[0].strip()
            tls = _tls_context(settings) if parts.scheme == "mqtts" else None
        except (OSError, ValueError, IndexError) as error:
            raise BusConfigurationError(
                f"broker settings: {error or 'the password file is empty'}"
            ) from error
        return cls(
            host=parts.hostname or "",
            port=parts.port or PORTS[parts.scheme],
            username=settings.username,
            password=password,
            tls=tls,
        )


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.cert_file is not None and settings.key_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context
