"""A node's side of renewal: it follows the CAs of the house, and renews its certificate long before that ends.

The key stays the node's own, and the same. A new CA is taken only when one that is trusted already has certified it:
who can write on the bus, but has not the CA's key, gains nothing.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from appliance import durable_files
from appliance.bus.certificate_messages import CertificateAnswer, CertificateRequest, HouseTrust
from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.topics import CERTIFICATE_ANSWER, CERTIFICATE_REQUEST, HOUSE_TRUST
from appliance.security.ca import certificates
from appliance.security.ca.authority import is_due
from appliance.security.paired import PairingFiles
from appliance.security.secrets import SecretError

_log = logging.getLogger(__name__)

LOOK_SECONDS = 3600.0
FIRST_RETRY_SECONDS = 10.0
LAST_RETRY_SECONDS = 3600.0


class NodeRenewal:
    """Keeps a node's certificate and CAs up to date."""

    def __init__(
        self,
        *,
        node: str,
        files: PairingFiles,
        bus: Bus,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
        retry_seconds: float = FIRST_RETRY_SECONDS,
    ) -> None:
        """Take the node's name, its files, the bus before it is entered, and what uses the files anew."""
        self._node = node
        self._files = files
        self._bus = bus
        self._changed = changed
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._asked = ""
        self._wanted = False
        """Whether the hub wants it to be renewed."""
        self._look = asyncio.Event()
        bus.subscribe(HOUSE_TRUST, self._on_trust)
        bus.subscribe(CERTIFICATE_ANSWER, self._on_answer, node=node)

    async def run(self) -> None:
        """Ask for a new certificate whenever it is time, until cancelled."""
        delay = self._retry_seconds
        while True:
            self._look.clear()
            due = self._wanted or await asyncio.to_thread(self._is_due)
            if due:
                await self._ask()
            else:
                delay = self._retry_seconds
            try:
                async with asyncio.timeout(delay if due else LOOK_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                delay = min(delay * 2, LAST_RETRY_SECONDS)

    def _is_due(self) -> bool:
        try:
            own, trusted = self._own(), self._trusted()
        except (OSError, ValueError) as error:
            _log.error("this node's certificate can't be read: %s", error)
            return False
        begins, ends = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
        if ends <= self._clock():
            _log.error(
                "this node's certificate ended on %s, so that the hub refuses it; pair it anew: "
                "rouse pair forget %s on the hub, rouse pair reset here",
                own.not_valid_after_utc.date(),
                self._node,
            )
        return is_due(begins, ends, self._clock()) or not certificates.is_issued_by(own, trusted[0])

    async def _ask(self) -> None:
        self._asked = secrets.token_hex(16)
        try:
            request = CertificateRequest(id=self._asked, request_pem=await asyncio.to_thread(self._request))
            await self._bus.publish(CERTIFICATE_REQUEST, request, node=self._node)
        except (OSError, ValueError, BusUnavailableError) as error:
            _log.warning("a new certificate can't be asked for yet: %s", error)

    def _request(self) -> str:
        key = certificates.load_key(self._files.key.read_bytes())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._node)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return request.public_bytes(certificates.PEM).decode()

    async def _on_trust(self, trust: HouseTrust | None, _levels: Mapping[str, str]) -> None:
        if trust is None:
            return
        self._wanted = self._node in trust.due
        followed = await asyncio.to_thread(self._follow, trust)
        if followed:
            self._use()
        if followed or self._wanted:
            self._look.set()

    def _follow(self, trust: HouseTrust) -> bool:
        """Trust the house's CAs as far as they are proven; whether anything changed."""
        try:
            told = certificates.certificates_of(trust.ca_pem.encode())
            crossed = certificates.certificates_of(trust.crossed_pem.encode()) if trust.crossed_pem else []
            before = self._trusted()
            proven = [one for one in told if one in before or _is_certified(one, crossed, before)]
            if not proven or proven[0] != told[0]:
                _log.error("the hub names a CA that none of those that this node trusts has certified; pair it anew")
                return False
            return durable_files.write(self._files.ca, certificates.joined(proven), mode=0o600)
        except (OSError, ValueError, TypeError) as error:
            _log.error("the house's CAs can't be followed: %s", error)
            return False

    async def _on_answer(self, answer: CertificateAnswer | None, _levels: Mapping[str, str]) -> None:
        if answer is None or answer.id != self._asked:
            return
        if answer.certificate_pem is None:
            _log.error("the hub does not renew this node's certificate: %s", answer.error)
            return
        self._asked = ""
        if await asyncio.to_thread(self._take, answer.certificate_pem.encode()):
            _log.info("this node has a new certificate")
            self._wanted = False
            self._use()
        self._look.set()

    def _take(self, chain_pem: bytes) -> bool:
        try:
            own, new = self._own(), certificates.certificates_of(chain_pem)[0]
            fits = (
                certificates.fingerprint(new.public_key()) == certificates.fingerprint(own.public_key())
                and new.subject == own.subject
                and certificates.is_issued_by(new, self._trusted()[0])
            )
            if not fits:
                _log.error("the hub sent a certificate that is not this node's; it is ignored")
                return False
            return durable_files.write(self._files.certificate, chain_pem, mode=0o600)
        except (OSError, ValueError, TypeError) as error:
            _log.error("the new certificate can't be kept: %s", error)
            return False

    def _use(self) -> None:
        try:
            self._changed()
        except SecretError as error:
            _log.error("%s", error)

    def _own(self) -> x509.Certificate:
        return certificates.certificates_of(self._files.certificate.read_bytes())[0]

    def _trusted(self) -> list[x509.Certificate]:
        return certificates.certificates_of(self._files.ca.read_bytes())


def _is_certified(
    new: x509.Certificate, crossed: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> bool:
    """Whether a trusted CA has certified the key and name of a new one as a CA's."""
    return any(
        cross.subject == new.subject
        and cross.public_key() == new.public_key()
        and _is_ca(cross)
        and certificates.is_issued_by(new, new)
        and any(certificates.is_issued_by(cross, one) for one in trusted)
        for cross in crossed
    )


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
