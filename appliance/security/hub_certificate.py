"""The hub's own certificate: made by its CA, and renewed in time."""

import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from cryptography import x509

from appliance import durable_files
from appliance.security.ca import certificates
from appliance.security.ca.authority import Authority, is_due
from appliance.security.ca.names import HUB_NAME
from appliance.security.secrets import SecretError


class HubCertificate:
    """Key and certificate in the folder of secrets. It blocks."""

    def __init__(self, folder: Path, *, days: int, clock: Callable[[], float] = time.time) -> None:
        """Take the folder, and for how long a certificate is valid."""
        self.key = folder / "tls" / "hub.key"
        self.chain = folder / "tls" / "hub.pem"
        self._days = days
        self._clock = clock

    def ensure(
        self,
        authority: Authority,
        *,
        names: Iterable[str] = (),
        addresses: Iterable[str] = (),
        anew: bool = False,
    ) -> bool:
        """Make or renew what is missing, old, of another CA, or without one of these names; whether that was needed.

        With `anew`, renew it in any case.

        Raises:
            SecretError: a file can't be read or written.
            CaError: the CA can't sign.
        """
        names, addresses = list(names), list(addresses)
        try:
            durable_files.make_folder(self.key.parent)
            if not self.key.exists():
                durable_files.write(self.key, certificates.key_pem(certificates.new_key()), mode=0o600)
            key = certificates.load_key(self.key.read_bytes())
            if not anew and self._is_good(authority, certificates.fingerprint(key.public_key()), names, addresses):
                return False
            chain = authority.sign_hub(key.public_key(), names=names, addresses=addresses, days=self._days)
            return durable_files.write(self.chain, chain, mode=0o600)
        except (OSError, ValueError) as error:
            raise SecretError(f"{self.key}: the hub's certificate can't be made: {error}") from error

    def state(self) -> object:
        """Return what changes when the certificate does."""
        try:
            status = self.chain.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _is_good(self, authority: Authority, fingerprint: str, names: list[str], addresses: list[str]) -> bool:
        try:
            pem = self.chain.read_bytes()
            certificate, *above = certificates.certificates_of(pem)
        except (FileNotFoundError, ValueError):
            return False
        crossed = authority.crossed_pem
        begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        return (
            certificates.fingerprint(certificate.public_key()) == fingerprint
            and not is_due(begins, ends, self._clock())
            and authority.is_current(pem)
            and certificates.joined(above) == crossed
            and _covers(certificate, names, addresses)
        )


def own_names() -> list[str]:
    """Return the names by which people reach this machine in their network."""
    host = socket.gethostname().partition(".")[0]
    usable = host.isascii() and 0 < len(host) <= 63
    return ["localhost", *((host, f"{host}.local") if usable and host != "localhost" else ())]


def own_addresses() -> list[str]:
    """Return this machine's IPv4 addresses; IPv6 ones change by the day."""
    found = {
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    }
    return sorted(found | {"127.0.0.1", "::1"})


def _covers(certificate: x509.Certificate, names: list[str], addresses: list[str]) -> bool:
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    dns = set(alternative.get_values_for_type(x509.DNSName))
    ips = {str(address) for address in alternative.get_values_for_type(x509.IPAddress)}
    return {HUB_NAME, *names} <= dns and set(addresses) <= ips
