"""How to reach the broker."""

import socket
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

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
                password = _first_line(settings.password_file)
            tls = _tls_context(settings) if parts.scheme == "mqtts" else None
        except (OSError, ValueError) as error:
            raise BusConfigurationError(f"broker settings: {error}") from error
        return cls(
            host=parts.hostname or "",
            port=parts.port or PORTS[parts.scheme],
            username=settings.username,
            password=password,
            tls=tls,
        )

    @classmethod
    def to_own_listener(cls, *, host: str, port: int, username: str, password: str, certificate: Path | None) -> Self:
        """Build the connection to the embedded broker on this machine.

        With a certificate, exactly that one is trusted. It need not name loopback: others reach the broker
        by another name.

        Raises:
            BusConfigurationError: the certificate can't be read.
        """
        tls = None
        if certificate is not None:
            try:
                tls = ssl.create_default_context(cafile=certificate)
            except OSError as error:
                raise BusConfigurationError(f"broker.listen_cert_file {certificate}: {error}") from error
            tls.check_hostname = False
            tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return cls(host=host, port=port, username=username, password=password, tls=tls)


def reachable(url: str, connection: Connection) -> str:
    """Replace a wildcard address in a URL of this machine by the address that faces the broker.

    Without a route to the broker it is this machine's name.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        if not ip_address(host).is_unspecified:
            return url
    except ValueError:
        return url
    try:
        own = _address_towards(connection)
    except OSError:
        own = socket.gethostname()
    own = f"[{own}]" if ":" in own else own
    return urlunsplit(parts._replace(netloc=f"{own}:{parts.port}"))


def _first_line(file: Path) -> str:
    line = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    if not line:
        raise ValueError(f"password_file {file} is empty")
    return line


def _address_towards(connection: Connection) -> str:
    family, kind, protocol, _, address = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # sends nothing: the kernel only chooses the route
        return str(probe.getsockname()[0])


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.cert_file is not None and settings.key_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context
