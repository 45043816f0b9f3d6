"""Carries out claims, one result for each, whatever happens."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from appliance.bus.pairing_messages import PairingClaim, PairingResult
from appliance.pairing.claim import Claim, Claimant
from appliance.pairing.discovery import Found
from appliance.pairing.errors import ImpostorError, RefusedError, UnconfirmedError, UnreachableError
from appliance.pairing.hub_ledger import HubLedger

_log = logging.getLogger(__name__)

_REASONS = frozenset({"wrong_code", "locked", "claimed", "unknown_node", "name_taken", "expired", "malformed"})
_LONGEST = 300


class ClaimDesk:
    """Takes claims."""

    def __init__(self, *, claimant: Claimant, ledger: HubLedger, waiting: Callable[[str], Sequence[Found]]) -> None:
        """Take who claims nodes, the hub's book, and what lists the nodes of a name that wait."""
        self._claimant = claimant
        self._ledger = ledger
        self._waiting = waiting

    async def carry_out(self, claim: PairingClaim, node: str) -> PairingResult:
        """Do what a claim asks for."""
        try:
            return await self._done(claim, node)
        except Exception as error:  # noqa: BLE001 - the CA has errors of its own, and every claim gets an answer
            return _result_of(error, claim, node)

    async def _done(self, claim: PairingClaim, node: str) -> PairingResult:
        if claim.deadline < time.time():
            raise RefusedError("expired", "The claim came too late.")
        return await (self._forget(claim, node) if claim.action == "forget" else self._pair(claim, node))

    async def _forget(self, claim: PairingClaim, node: str) -> PairingResult:
        if not await asyncio.to_thread(self._ledger.forget, node):
            raise RefusedError("unknown_node", f"No node {node} belongs to this hub.")
        message = f"{node} belongs to this hub no more. To pair it anew, run rouse pair reset on it."
        return PairingResult(id=claim.id, ok=True, reason="forgotten", message=message)

    async def _pair(self, claim: PairingClaim, node: str) -> PairingResult:
        if claim.code is None:
            raise RefusedError("malformed", "To pair a node takes its code.")
        found = self._waiting(node)
        if not found:
            raise RefusedError("unknown_node", f"No node {node} waits to be paired in this network.")
        if len({entry.state.node.fingerprint for entry in found}) > 1:
            addresses = ", ".join(entry.address for entry in found)
            raise RefusedError("name_taken", f"Several nodes call themselves {node}: {addresses}. Rename one.")
        there = found[-1]
        claimed = await self._claimant.claim(
            Claim(node, there.address, there.port, claim.code, there.state.node.fingerprint)
        )
        others = f" Others tried as well: {', '.join(claimed.others)}." if claimed.others else ""
        message = f"{node} belongs to this hub.{others}"[:_LONGEST]
        return PairingResult(id=claim.id, ok=True, reason="paired", message=message, others=claimed.others)


def _result_of(error: Exception, claim: PairingClaim, node: str) -> PairingResult:
    told = {"id": claim.id, "ok": False, "reason": "not_possible", "message": str(error)[:_LONGEST]}
    match error:
        case RefusedError():
            if error.reason in _REASONS:
                told["reason"] = error.reason
            told |= {"attempts_left": error.attempts_left, "retry_after": error.retry_after}
        case UnreachableError():
            told["reason"] = "unreachable"
        case ImpostorError():
            told["reason"] = "impostor"
            _log.warning("pairing with %s: %s", node, error)
        case UnconfirmedError():
            message = f"The node was given all it needs, but did not say that it has it: {error}"
            told |= {"ok": True, "reason": "handed_over", "message": message[:_LONGEST]}
        case _:
            told["message"] = "The hub could not carry it out; its log says why."
            _log.error("the claim of %s failed", node, exc_info=error)
    return PairingResult.model_validate(told)
