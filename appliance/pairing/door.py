"""The node's pairing door: what it does with those who knock. It knows nothing of HTTP."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from appliance.pairing.codes import Attempts, Code, shown
from appliance.pairing.errors import ImpostorError, StorageError
from appliance.pairing.exchange import Exchange
from appliance.pairing.identity import NodeKey
from appliance.pairing.node_store import NodeStore
from appliance.pairing.wire import (
    Credentials,
    DoorState,
    FinishReply,
    FinishRequest,
    Identity,
    ProveReply,
    ProveRequest,
    Refusal,
    SigningRequest,
    StartReply,
    StartRequest,
    Stored,
    parsed,
)
from appliance.settings.section import Role

_log = logging.getLogger(__name__)

EXCHANGES = 16
"""Exchanges that may have begun at the same time; the oldest goes."""
EXCHANGE_SECONDS = 30.0
CLAIM_SECONDS = 60.0
"""How long the hub that knows the code may take to hand over."""
REQUEST_STEP, CREDENTIALS_STEP, STORED_STEP = 1, 2, 3


@dataclass(slots=True)
class _Knock:
    exchange: Exchange
    hub: Identity
    sender: str
    ends: float


class Door:
    """Open until the node is paired."""

    def __init__(
        self,
        *,
        name: str,
        roles: tuple[Role, ...],
        store: NodeStore,
        code_lifetime: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the node's name and roles, where to keep what it gets, and how long a code counts."""
        self._name = name
        self._roles = roles
        self._store = store
        self._key: NodeKey = store.key()
        self._code = Code(lifetime=code_lifetime, clock=clock)
        self._attempts = Attempts(clock=clock)
        self._clock = clock
        self._begun: OrderedDict[str, _Knock] = OrderedDict()
        self._claim: _Knock | None = None
        self._claimed_session = ""
        self._refused: list[str] = []
        self.paired = asyncio.Event()

    @property
    def identity(self) -> Identity:
        """What the node says of itself."""
        return self._key.identity(self._name)

    @property
    def code(self) -> str:
        """The code, for the machine's own screen."""
        return shown(self._code.value)

    @property
    def code_expires_in(self) -> float:
        """Seconds for which the code counts."""
        return self._code.expires_in

    @property
    def state(self) -> DoorState:
        """What the door is doing."""
        if self.paired.is_set():
            return "paired"
        self._let_go_of_idle_claim()
        if self._claim is not None:
            return "claimed"
        return "locked" if self._attempts.locked_for > 0 else "open"

    @property
    def locked_for(self) -> float:
        """Seconds until codes are taken again."""
        return self._attempts.locked_for

    def renew_code(self) -> None:
        """Show another code and forgive wrong ones: somebody stands at the machine."""
        self._code.renew()
        self._attempts.forgive()
        self._begun.clear()

    def start(self, request: StartRequest, sender: str) -> StartReply | Refusal:
        """Begin an exchange."""
        refusal = self._closed_to(request.session, sender)
        if refusal is not None:
            return refusal
        exchange = Exchange(
            "node", code=self._code.value, session=bytes.fromhex(request.session), identity=self.identity.encoded()
        )
        try:
            exchange.meet(request.share, request.hub.encoded())
        except ImpostorError as error:
            return Refusal(reason="malformed", message=str(error))
        self._begun.pop(request.session, None)
        self._begun[request.session] = _Knock(exchange, request.hub, sender, self._clock() + EXCHANGE_SECONDS)
        while len(self._begun) > EXCHANGES:
            self._begun.popitem(last=False)
        return StartReply(node=self.identity, share=exchange.share)

    def prove(self, request: ProveRequest, sender: str) -> ProveReply | Refusal:
        """Take the hub's proof. Whoever proves first claims the node, and the code is used up."""
        refusal = self._closed_to(request.session, sender)
        if refusal is not None:
            return refusal
        knock = self._begun.pop(request.session, None)
        if knock is None or knock.ends < self._clock():
            return Refusal(reason="unknown_session", message="There is no such exchange, or it took too long.")
        if not knock.exchange.proves(request.tag):
            return self._wrong_code(sender)
        self._begun.clear()
        self._code.renew()
        self._attempts.forgive()
        self._refused.clear()
        knock.ends = self._clock() + CLAIM_SECONDS
        self._claim, self._claimed_session = knock, request.session
        _log.info("claimed by the hub %s at %s", knock.hub.name, knock.sender)
        wanted = SigningRequest(request_pem=self._key.request_pem(self._name).decode(), roles=self._roles)
        sealed = knock.exchange.seal(wanted.model_dump_json().encode(), step=REQUEST_STEP)
        return ProveReply(tag=knock.exchange.tag, sealed=sealed)

    def finish(self, request: FinishRequest, sender: str) -> FinishReply | Refusal:
        """Take the credentials and keep them; the door is shut from then on."""
        refusal = self._closed_to(request.session, sender)
        if refusal is not None:
            return refusal
        claim = self._claim
        if claim is None:
            return Refusal(reason="unknown_session", message="There is no such exchange, or it took too long.")
        try:
            credentials = parsed(Credentials, claim.exchange.open(request.sealed, step=CREDENTIALS_STEP))
        except ImpostorError as error:
            # Anybody can send this; the claim stays.
            return Refusal(reason="credentials", message=str(error))
        problem = "not what a hub sends" if credentials is None else self._key.fits(credentials, name=self._name)
        if credentials is None or problem is not None or credentials.hub_fingerprint != claim.hub.fingerprint:
            self._claim = None
            return Refusal(reason="credentials", message=problem or "The CA is not the one that the hub named.")
        try:
            self._store.commit(credentials, self._key)
        except StorageError as error:
            self._claim = None
            _log.error("%s", error)
            return Refusal(reason="storage", message="The node can't keep the credentials; its log says why.")
        told = Stored(refused=tuple(self._refused))
        sealed = claim.exchange.seal(told.model_dump_json().encode(), step=STORED_STEP)
        self.paired.set()
        _log.info("paired with the hub %s", credentials.hub)
        return FinishReply(sealed=sealed)

    def _closed_to(self, session: str, sender: str) -> Refusal | None:
        state = self.state
        if state == "paired":
            return Refusal(reason="paired", message="This node belongs to a hub already.")
        if state == "claimed" and session != self._claimed_session:
            if sender not in self._refused and len(self._refused) < 20:
                self._refused.append(sender)
                _log.warning("%s tried to claim this node while another does", sender)
            return Refusal(reason="claimed", message="Another hub is pairing with this node at this moment.")
        if state == "locked":
            wait = round(self._attempts.locked_for, 1)
            return Refusal(reason="locked", message="Too many wrong codes: the node takes none now.", retry_after=wait)
        return None

    def _wrong_code(self, sender: str) -> Refusal:
        self._attempts.wrong()
        left = self._attempts.left
        if self._attempts.locked_for > 0:
            left = 0
            self._begun.clear()
            self._code.renew()
        _log.warning("a wrong code from %s; %d more until the door is locked", sender, left)
        return Refusal(reason="wrong_code", message="The code is wrong.", attempts_left=left)

    def _let_go_of_idle_claim(self) -> None:
        if self._claim is not None and self._claim.ends < self._clock():
            _log.warning("the hub %s did not hand over in time", self._claim.hub.name)
            self._claim = None
