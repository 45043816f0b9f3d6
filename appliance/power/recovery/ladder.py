"""One climb: rung after rung, until the node is back or there is nothing left to try."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from appliance.bus.waking_messages import RecoveryStep
from appliance.power.errors import RungError
from appliance.power.metrics import PowerMetrics
from appliance.power.nodes import KnownNode, NodeBook
from appliance.power.recovery.ledger import Begun, Ledger
from appliance.power.recovery.rungs import Rung
from appliance.security.audit import AuditError, AuditLog

_log = logging.getLogger(__name__)

MAX_EVIDENCE = 500

type Objection = Callable[[KnownNode], Awaitable[str | None]]
"""Says why a node's power must not be switched now, or None."""


class Ladder:
    """Climbs. It keeps no state of its own: what must outlive a kill is in the ledger."""

    def __init__(
        self,
        *,
        rungs: Sequence[Rung],
        book: NodeBook,
        ledger: Ledger,
        audit: AuditLog,
        metrics: PowerMetrics,
        objection: Objection,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the rungs in their order, and the parts."""
        self._rungs = rungs
        self._book = book
        self._ledger = ledger
        self._audit = audit
        self._metrics = metrics
        self._objection = objection
        self._wall = wall
        self._switching = asyncio.Lock()
        """One machine's power at a time: what fails together, often has one cause."""

    async def climb(self, name: str, begun: Begun) -> tuple[RecoveryStep, ...]:
        """Try what has not been tried, and return all steps; the last one's outcome is `returned` if it helped.

        `begun` may be of a process that was killed: then the rung that was acting is not repeated.
        """
        steps = list(begun.steps)
        if begun.acting is not None:
            steps.append(await self._after_a_kill(name, begun))
        done = {step.rung for step in steps}
        for rung in self._rungs:
            node = self._book.get(name)
            if node is None or (steps and steps[-1].outcome == "returned"):
                break
            if rung.name in done or not rung.serves(name):
                continue
            steps.append(await self._step(rung, node, begun, tuple(steps)))
        return tuple(steps)

    async def _after_a_kill(self, name: str, begun: Begun) -> RecoveryStep:
        rung = next(rung for rung in self._rungs if rung.name == begun.acting)
        back = await self._returns(name, rung.patience)
        evidence = "the hub was stopped while this was done"
        return await self._finish(rung, name, "returned" if back else "no_return", evidence)

    async def _step(self, rung: Rung, node: KnownNode, begun: Begun, steps: tuple[RecoveryStep, ...]) -> RecoveryStep:
        async with self._switching if rung.switches_power else contextlib.nullcontext():
            if self._is_back(node.name):
                return await self._finish(rung, node.name, "returned", "it came back by itself")
            if rung.switches_power and (reason := await self._objection(node)) is not None:
                return await self._finish(rung, node.name, "refused", reason)
            try:
                await self._note_ahead(rung, node.name, begun, steps)
            except OSError as error:
                return await self._finish(rung, node.name, "refused", f"it could not be noted on the disk: {error}")
            try:
                evidence = await self._act(rung, node)
            except RungError as error:
                return await self._finish(rung, node.name, "failed", str(error))
            back = await self._returns(node.name, rung.patience)
            if not back:
                evidence += f"; not back within {rung.patience:g} s"
            return await self._finish(rung, node.name, "returned" if back else "no_return", evidence)

    async def _act(self, rung: Rung, node: KnownNode) -> str:
        """Have a rung act, and stop it as soon as the node is back.

        Raises:
            RungError: it could not.
        """
        acting = asyncio.create_task(rung.act(node), name=f"{rung.name} for {node.name}")
        returning = asyncio.create_task(self._until_back(node.name), name=f"return of {node.name}")
        try:
            await asyncio.wait([acting, returning], return_when=asyncio.FIRST_COMPLETED)
            return acting.result().evidence if acting.done() else "it came back meanwhile"
        finally:
            for task in (acting, returning):
                task.cancel()
            await asyncio.gather(acting, returning, return_exceptions=True)

    async def _note_ahead(self, rung: Rung, name: str, begun: Begun, steps: tuple[RecoveryStep, ...]) -> None:
        """Bring to the disk what is about to be done. Raises OSError."""
        now = self._wall()
        case = self._ledger.of(name)
        acting = begun.model_copy(update={"steps": steps, "acting": rung.name, "acting_since": now})
        switched = (*case.switched, now) if rung.switches_power else case.switched
        noted = case.model_copy(update={"begun": acting, "switched": switched})
        await asyncio.to_thread(self._ledger.write, name, noted, now)
        if rung.switches_power:
            await self._record(rung, name, "begun", "its power is about to be switched")

    async def _finish(self, rung: Rung, name: str, outcome: str, evidence: str) -> RecoveryStep:
        _log.log(
            logging.INFO if outcome == "returned" else logging.WARNING,
            "recovery of %s by %s: %s: %s", name, rung.name, outcome, evidence,
        )  # fmt: skip
        self._metrics.steps.labels(name, rung.name, outcome).inc()
        await self._record(rung, name, outcome, evidence)
        return RecoveryStep.model_validate(
            {"rung": rung.name, "outcome": outcome, "evidence": evidence[:MAX_EVIDENCE], "at": self._wall()}
        )

    async def _record(self, rung: Rung, name: str, outcome: str, evidence: str) -> None:
        try:
            await asyncio.to_thread(self._audit.record, "hub", f"recovery.{rung.name}", name, outcome, evidence)
        except AuditError as error:
            _log.error("%s", error)

    def _is_back(self, name: str) -> bool:
        node = self._book.get(name)
        return node is None or node.online

    async def _until_back(self, name: str) -> None:
        while not self._is_back(name):
            await self._book.change()

    async def _returns(self, name: str, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until_back(name)
        return self._is_back(name)
