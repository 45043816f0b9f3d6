"""The hub's side of renewal: tells the house whom to trust, and answers nodes that ask for a new certificate."""

import asyncio
import logging
from collections.abc import Mapping

from appliance.bus.certificate_messages import CertificateAnswer, CertificateRequest, HouseTrust
from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.topics import CERTIFICATE_ANSWER, CERTIFICATE_REQUEST, HOUSE_TRUST
from appliance.security.ca.authority import Authority
from appliance.security.ca.errors import CaError, RequestRefusedError

_log = logging.getLogger(__name__)

_LONGEST = 300


def trust_of(authority: Authority) -> HouseTrust:
    """Return what the house is told. It blocks."""
    return HouseTrust(
        ca_pem=authority.ca_pem.decode(), crossed_pem=authority.crossed_pem.decode(), due=authority.wanted()
    )


class RenewalDesk:
    """Answers requests that come by the bus."""

    def __init__(self, *, bus: Bus, authority: Authority, days: int) -> None:
        """Take the bus, before it is entered, the CA, and for how long a certificate is valid."""
        self._bus = bus
        self._authority = authority
        self._days = days
        bus.subscribe(CERTIFICATE_REQUEST, self._on_request)

    async def tell(self) -> None:
        """Say whom the house trusts now."""
        authority = self._authority
        await self._bus.keep(HOUSE_TRUST, await asyncio.to_thread(trust_of, authority))

    async def _on_request(self, request: CertificateRequest | None, levels: Mapping[str, str]) -> None:
        if request is None:
            return
        node = levels["node"]
        try:
            pem = await asyncio.to_thread(
                self._authority.renew, request.request_pem.encode(), name=node, days=self._days
            )
            answer = CertificateAnswer(id=request.id, certificate_pem=pem.decode())
            _log.info("the certificate of %s was renewed", node)
        except RequestRefusedError as error:
            _log.warning("the certificate of %s is not renewed: %s", node, error)
            answer = CertificateAnswer(id=request.id, error=str(error)[:_LONGEST])
        except CaError as error:
            _log.error("the certificate of %s can't be renewed: %s", node, error)
            answer = CertificateAnswer(id=request.id, error="The hub could not do it; its log says why.")
        try:
            await self._bus.publish(CERTIFICATE_ANSWER, answer, node=node)
        except BusUnavailableError as error:
            _log.warning("%s was not told of its new certificate and will ask again: %s", node, error)
