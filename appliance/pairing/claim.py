"""The hub's side of an exchange: from a code that somebody typed to a node that belongs to the house."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from appliance.pairing.door import CREDENTIALS_STEP, REQUEST_STEP, STORED_STEP
from appliance.pairing.errors import ImpostorError, RefusedError, UnconfirmedError, UnreachableError
from appliance.pairing.exchange import Exchange, new_session
from appliance.pairing.hub_ledger import HubLedger
from appliance.pairing.identity import fingerprint_of_certificate
from appliance.pairing.wire import (
    LARGEST_BYTES,
    VERSION,
    Credentials,
    FinishReply,
    FinishRequest,
    Identity,
    Part,
    ProveReply,
    ProveRequest,
    Refusal,
    SigningRequest,
    StartReply,
    StartRequest,
    Stored,
    parsed,
)
from appliance.security.ca.certificates import fingerprint
from appliance.security.ca.errors import RequestRefusedError
from appliance.security.ca.requests import requested_key
from appliance.settings.section import Role

ANSWER_SECONDS = 15.0
_JSON = {"Content-Type": "application/json"}
_STRANGER = "Who answers is not the node that shows this code. Somebody may be between the hub and the node."


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed: a node at an address, with the code that its screen shows."""

    node: str
    host: str
    port: int
    code: str
    fingerprint: str | None = None
    """What the node announced; None to take what it says."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A node that belongs to the hub now."""

    node: str
    fingerprint: str
    others: tuple[str, ...]
    """Addresses that tried to claim it meanwhile."""


class Claimant:
    """Claims nodes for the hub."""

    def __init__(
        self, *, hub: str, ledger: HubLedger, http: aiohttp.ClientSession, broker_url: Callable[[str], str]
    ) -> None:
        """Take the hub's name, its book, and what names the broker for a node that sees the hub at an address.

        `broker_url` raises RefusedError where nodes can't reach the broker.
        """
        self._hub = hub
        self._ledger = ledger
        self._http = http
        self._broker_url = broker_url

    async def claim(self, claim: Claim) -> Claimed:
        """Pair with a node.

        Raises:
            RefusedError: the node or this hub says no; nothing has changed.
            UnreachableError: the node does not answer; nothing has changed.
            ImpostorError: who answers does not know the code; nothing was handed over.
            UnconfirmedError: all was handed over, but the node's last word is missing.
            StorageError: the hub's disk refuses.
        """
        # Refused before the code is used up.
        if claim.node in self._ledger.reserved:
            raise RefusedError(
                "name_taken",
                f"{claim.node} stands for something else here. Give the node another name in its rouse.toml.",
            )
        broker_url = self._broker_url(await self._own_address(claim))
        ca_pem = self._ledger.authority.ca_pem
        hub = Identity(name=self._hub, fingerprint=fingerprint_of_certificate(ca_pem))
        session = new_session()
        exchange = Exchange("hub", code=claim.code, session=session, identity=hub.encoded())
        start = StartRequest(version=VERSION, session=session.hex(), hub=hub, share=exchange.share)
        started = await self._ask(claim, "start", start, StartReply)
        await self._check_identity(claim, started.node)
        exchange.meet(started.share, started.node.encoded())
        proof = ProveRequest(session=session.hex(), tag=exchange.tag)
        proven = await self._ask(claim, "prove", proof, ProveReply)
        if not exchange.proves(proven.tag):
            raise ImpostorError(_STRANGER)
        wanted = parsed(SigningRequest, exchange.open(proven.sealed, step=REQUEST_STEP))
        roles, request_pem = self._checked(wanted, started.node)
        password, certificate = await asyncio.to_thread(
            self._ledger.prepare, claim.node, started.node.fingerprint, request_pem, roles
        )
        try:
            credentials = Credentials(
                hub=self._hub,
                broker_url=broker_url,
                username=claim.node,
                password=password,
                ca_pem=ca_pem.decode(),
                certificate_pem=certificate.decode(),
                hub_fingerprint=hub.fingerprint,
                expert_key=self._ledger.expert_key,
            )
        except ValueError as error:
            await asyncio.to_thread(self._ledger.forget, claim.node)
            raise RefusedError("not_possible", f"The hub has nothing that a node can use: {error}") from error
        sealed = exchange.seal(credentials.model_dump_json().encode(), step=CREDENTIALS_STEP)
        stored = await self._hand_over(claim, exchange, FinishRequest(session=session.hex(), sealed=sealed))
        await asyncio.to_thread(self._ledger.confirm, claim.node)
        return Claimed(claim.node, started.node.fingerprint, stored.refused)

    async def _hand_over(self, claim: Claim, exchange: Exchange, finish: FinishRequest) -> Stored:
        """Send the credentials. From here on only the node's own refusal means that it has not stored them."""
        try:
            reply = await self._ask(claim, "finish", finish, FinishReply)
            stored = parsed(Stored, exchange.open(reply.sealed, step=STORED_STEP))
        except RefusedError as error:
            if error.reason in {"credentials", "storage", "unknown_session"}:
                await asyncio.to_thread(self._ledger.forget, claim.node)
                raise
            raise UnconfirmedError(str(error)) from error
        except (UnreachableError, ImpostorError) as error:
            raise UnconfirmedError(str(error)) from error
        if stored is None:
            raise UnconfirmedError("The node's last word is none.")
        return stored

    async def _check_identity(self, claim: Claim, node: Identity) -> None:
        """Refuse to go on with another node than the one that is meant."""
        if node.name != claim.node:
            raise RefusedError("unknown_node", f"At {claim.host} answers {node.name}, and not {claim.node}.")
        if claim.fingerprint is not None and node.fingerprint != claim.fingerprint:
            raise ImpostorError("The node has another key than the one that it announced.")
        member = (await asyncio.to_thread(self._ledger.members)).get(node.name)
        if member is not None and member.fingerprint != node.fingerprint:
            raise RefusedError(
                "name_taken",
                f"There is a node {node.name} already, with another key. Give this one another name in its rouse.toml, "
                f"or let the other go: rouse pair forget {node.name}",
            )

    def _checked(self, wanted: SigningRequest | None, node: Identity) -> tuple[tuple[Role, ...], bytes]:
        if wanted is None:
            raise ImpostorError("The node asks for a certificate in a way that no node does.")
        request_pem = wanted.request_pem.encode()
        try:
            if fingerprint(requested_key(request_pem)) == node.fingerprint:
                return wanted.roles, request_pem
        except RequestRefusedError as error:
            raise ImpostorError("The node's request for a certificate is none.") from error
        raise ImpostorError("The node asks for a certificate of another key than its own.")

    async def _own_address(self, claim: Claim) -> str:
        """Return this hub's address as the node sees it."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                _, writer = await asyncio.open_connection(claim.host, claim.port)
        except (OSError, TimeoutError) as error:
            raise UnreachableError(_unreachable(claim)) from error
        try:
            return str(writer.get_extra_info("sockname")[0])
        finally:
            writer.close()

    async def _ask[P: Part](self, claim: Claim, step: str, part: Part, kind: type[P]) -> P:
        host = f"[{claim.host}]" if ":" in claim.host else claim.host
        url = f"http://{host}:{claim.port}/pairing/{step}"
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._http.post(url, data=part.model_dump_json(), headers=_JSON, allow_redirects=False) as response,
            ):
                body = await _read(response)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(_unreachable(claim)) from error
        reply = parsed(kind, body) if status == 200 else None
        if reply is not None:
            return reply
        refusal = parsed(Refusal, body)
        if refusal is None:
            raise UnreachableError(f"At {claim.host}:{claim.port} answers something else than a node (HTTP {status}).")
        raise RefusedError(
            refusal.reason,
            refusal.message,
            attempts_left=refusal.attempts_left,
            retry_after=refusal.retry_after,
        )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LARGEST_BYTES:
            return b""
    return body


def _unreachable(claim: Claim) -> str:
    return f"The node does not answer at {claim.host}:{claim.port}. Is it on, and in the same network?"
