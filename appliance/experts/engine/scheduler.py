"""Continuous batching: one thread owns the backend and steps all running requests as one batch.

Requests join and leave between any two steps. Each step, every request that is producing tokens gets its one;
what is left of the step's budget goes to prompts, a bounded chunk when others are producing tokens.
(Orca, Yu et al., OSDI 2022; chunked prefill: Sarathi-Serve, Agrawal et al., OSDI 2024.)
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

from appliance.experts.backend import Backend, BackendFactory, ModelInfo
from appliance.experts.engine.batching import plan
from appliance.experts.engine.costs import StepCosts
from appliance.experts.engine.running import Running
from appliance.experts.errors import (
    BusyError,
    ContextExceededError,
    EngineBrokenError,
    ExpertError,
    LoadingError,
    ModelLoadError,
    StepError,
)
from appliance.experts.events import Event, Failed
from appliance.experts.generation import Generation, GenerationRequest
from appliance.experts.metrics import ExpertMetrics
from appliance.experts.prefixes.cache import PrefixCache
from appliance.experts.prefixes.loading import StoredPrefixes
from appliance.experts.prefixes.tree import common_prefix
from appliance.experts.settings import EngineSettings

_log = logging.getLogger(__name__)

WORTH_WAITING = 64
"""Tokens that another running prompt must share with a waiting one for it to wait until they are computed."""

FLUSH_SECONDS = 0.015
"""How long tokens may be held back to be sent together. Every delivery wakes the event loop and costs each end of
the connection some 0.3 ms of processor time, a thirtieth of a small model's step."""

BROKEN_AFTER = 3
"""Steps in a row that fail before the context counts as broken."""

BEAT_SECONDS = 5.0
WORKING_SHARE = 0.02
"""Processor time of a thread that works, to the time that passes: little where many share a processor."""

type State = Literal["loading", "ready", "stopping", "stopped", "broken"]
type Outbox = list[tuple[Generation, Sequence[Event]]]


@dataclass(frozen=True, slots=True)
class Status:
    """What the engine is doing."""

    state: State
    slots: int
    active: int
    queued: int
    kv_used: int


class Scheduler:
    """Runs requests on a backend; create it, `start` it in an event loop, `submit`, `stop`."""

    def __init__(self, factory: BackendFactory, settings: EngineSettings, metrics: ExpertMetrics) -> None:
        """Take what loads the model; it is called in the engine thread."""
        self._factory = factory
        self._settings = settings
        self._metrics = metrics
        self._changed = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._jobs: deque[Callable[[Backend], None]] = deque()
        self._running: list[Running] = []
        self._kv_used = 0
        self._costs = StepCosts()
        self._state: State = "loading"
        self._backend: Backend | None = None
        self._deadline = 0.0
        self._failures = 0
        self._outbox: Outbox = []
        self._urgent = False
        self._flushed = 0.0
        self._round_trip: asyncio.Future[None] | None = None

    # ---- event loop side

    async def start(self) -> None:
        """Load the model. Raises ModelLoadError."""
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()
        await asyncio.shield(self._loaded)

    @property
    def backend(self) -> Backend:
        """The loaded backend, for its thread-safe methods. Raises LoadingError or EngineBrokenError."""
        if self._backend is None:
            raise LoadingError if self._state == "loading" else EngineBrokenError("The engine has stopped.")
        return self._backend

    @property
    def info(self) -> ModelInfo:
        """What is known of the model. Raises LoadingError."""
        return self.backend.info

    @property
    def context_tokens(self) -> int:
        """Most tokens of one request."""
        return self._settings.context_tokens

    def status(self) -> Status:
        """Return a snapshot."""
        return Status(self._state, self._settings.slots, len(self._running), len(self._waiting), self._kv_used)

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request. Raises BusyError, LoadingError, EngineBrokenError or ContextExceededError."""
        self._check_open()
        if len(request.prompt) >= self.context_tokens:
            raise ContextExceededError(prompt_tokens=len(request.prompt), limit=self.context_tokens)
        generation = Generation(request, submitted=time.monotonic(), wake=self._wake)
        with self._changed:
            if len(self._waiting) >= self._settings.queue_limit + self._settings.slots - len(self._running):
                raise BusyError(
                    f"All slots are busy and {len(self._waiting)} requests wait already.",
                    retry_after=self._retry_after(),
                )
            self._waiting.append(generation)
            self._changed.notify()
        self._metrics.prompt_tokens.inc(len(request.prompt))
        return generation

    async def call[T](self, job: Callable[[Backend], T]) -> T:
        """Run something short in the engine thread, between two steps, and return its result."""
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work(backend: Backend) -> None:
            try:
                outcome: tuple[T | None, BaseException | None] = (job(backend), None)
            except Exception as error:  # noqa: BLE001  # it belongs to the caller
                outcome = (None, error)
            self._post(settle, *outcome)

        with self._changed:
            if len(self._jobs) >= self._settings.queue_limit + self._settings.slots:
                raise BusyError("Too many requests wait already.", retry_after=self._retry_after())
            self._jobs.append(work)
            self._changed.notify()
        return await future

    async def save_prefixes(self) -> int:
        """Write to disk which prefixes are worth it, and return how many were not there yet.

        The machine is about to sleep, or to lose its power. Raises like `call`.
        """
        saved = await self.call(lambda _: self._prefixes.save_all())
        if self._stored.store is not None:
            await asyncio.wrap_future(self._stored.store.flush())
        return saved

    async def beat(self) -> None:
        """Return when the engine thread has come round or computes: that it hangs shows in no other way.

        A step takes minutes where a large model meets an old processor, so a thread that uses processor time is alive.
        So is an engine that loads its model, waits for workers (`rpc.watch` knows whether they live), or is too busy
        to take a job; one that has failed ends by itself.
        """
        if self._settings.workers:
            return
        if self._round_trip is None or self._round_trip.done():
            self._round_trip = asyncio.ensure_future(self.call(lambda _: None))
        used = self._processor_seconds()
        while not (await asyncio.wait([self._round_trip], timeout=BEAT_SECONDS))[0]:
            before, used = used, self._processor_seconds()
            if used - before > BEAT_SECONDS * WORKING_SHARE:
                return
        with contextlib.suppress(ExpertError):
            self._round_trip.result()

    def _processor_seconds(self) -> float:
        """Return what the engine thread has used."""
        threads = psutil.Process().threads()
        return sum(one.user_time + one.system_time for one in threads if one.id == self._thread.native_id)

    async def stop(self) -> None:
        """Refuse new requests, let running ones end within the drain time, fail the rest, free all."""
        with self._changed:
            if self._state in ("loading", "ready"):
                self._state = "stopping"
            self._deadline = time.monotonic() + self._settings.drain_seconds
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def wait_ended(self) -> None:
        """Return when the engine has stopped. Raises EngineBrokenError if that was its own doing."""
        await asyncio.shield(self._ended)

    def _check_open(self) -> None:
        match self._state:
            case "loading":
                raise LoadingError
            case "stopping" | "stopped":
                raise BusyError("The expert is stopping.", retry_after=10)
            case "broken":
                raise EngineBrokenError("The engine has failed; the process is about to be restarted.")

    def _retry_after(self) -> int:
        return 1 + len(self._waiting) // self._settings.slots

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    @staticmethod
    def _deliver(outbox: Outbox) -> None:
        for generation, events in outbox:
            generation.feed(events)

    # ---- engine thread

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _main(self) -> None:
        error: ExpertError | None = None
        try:
            backend = self._factory()
        except ModelLoadError as failure:
            self._state = "broken"
            self._post(_settle, self._loaded, failure)
            self._post(_settle, self._ended, failure)
            return
        try:
            self._settings = self._settings.limited_to(backend.info.trained_context)
            self._metrics.kv_size.set(self._settings.kv_cells)
            self._backend = backend
            if self._state == "loading":
                self._state = "ready"
            self._post(_settle, self._loaded, None)
            self._stored = StoredPrefixes(backend, self._settings, self._wake)
            self._loop_steps(backend)
        except EngineBrokenError as failure:
            _log.critical("%s", failure)
            error = failure
        except Exception as failure:  # noqa: BLE001  # whatever it is, nobody else would hear of it
            _log.exception("The engine thread ended by an error of its own")
            error = EngineBrokenError(f"The engine failed: {failure!r}")
        finally:
            self._state = "stopped" if error is None else "broken"
            self._fail_all(error or BusyError("The expert has stopped.", retry_after=10))
            self._backend = None
            if error is None:
                self._keep_prefixes()
            backend.close()
            self._post(_settle, self._ended, error)

    def _loop_steps(self, backend: Backend) -> None:
        self._prefixes = PrefixCache(backend, self._settings, self._stored.store)
        self._costs = StepCosts(backend.costs)
        while True:
            with self._changed:
                while not self._has_work():
                    self._changed.wait()
                if self._state == "stopping" and (not self._busy or time.monotonic() >= self._deadline):
                    return
                jobs = list(self._jobs)
                self._jobs.clear()
            for job in jobs:
                job(backend)
            try:
                self._drop_cancelled()
                self._admit(backend)
                if self._running:
                    self._step(backend)
                elif self._prefixes.wants_saving:
                    self._prefixes.save_next()
                elif self._prefixes.wants_tidying:
                    self._prefixes.tidy_next()
            finally:
                self._flush()
            if self._running:
                self._prefixes.pass_over()
            self._observe()

    def _flush(self) -> None:
        """Deliver what has come: first and last events at once, others together with those of the next steps."""
        now = time.monotonic()
        if self._outbox and (self._urgent or not self._running or now - self._flushed >= FLUSH_SECONDS):
            self._post(self._deliver, self._outbox)
            self._outbox, self._urgent, self._flushed = [], False, now

    def _fail(self, generation: Generation, error: ExpertError) -> None:
        self._outbox.append((generation, [Failed(error)]))
        self._urgent = True

    def _has_work(self) -> bool:
        if self._running or self._jobs or self._state != "ready":
            return True
        if any(item.cancelled or not self._stored.is_loading(item) for item in self._waiting):
            return True
        return self._prefixes.wants_saving or self._prefixes.wants_tidying

    @property
    def _busy(self) -> bool:
        return bool(self._running or self._waiting or self._jobs)

    def _drop_cancelled(self) -> None:
        for running in [running for running in self._running if running.generation.cancelled]:
            self._leave(running)

    def _admit(self, backend: Backend) -> None:
        """Let waiting requests in, in order; one that waits for a prefix lets others pass."""
        passed: list[Generation] = []
        while len(self._running) < self._settings.slots:
            with self._changed:
                if not self._waiting:
                    break
                generation = self._waiting.popleft()
            if generation.cancelled:
                continue
            if self._comes_sooner(generation):
                passed.append(generation)
            elif not self._fits(generation):
                passed.append(generation)
                break
            else:
                self._join(backend, generation)
                if not any(running.started for running in self._running):
                    self._prefixes.tidy()
        if passed:
            with self._changed:
                self._waiting.extendleft(reversed(passed))

    def _comes_sooner(self, generation: Generation) -> bool:
        """Whether a good part of the prompt is being read from disk or computed for another request right now."""
        prompt = generation.request.prompt
        known = self._prefixes.match(prompt)
        if self._stored.fetch(generation, known, self._prefixes.shelf):
            return True
        return any(
            running.prefilling and common_prefix(running.generation.request.prompt, prompt) >= known + WORTH_WAITING
            for running in self._running
        )

    def _fits(self, generation: Generation) -> bool:
        """Whether the cache has room for the worst case of every running request and of this one."""
        if not self._running:
            return True
        needed = self._prefixes.committed() + self._worst(generation)
        needed += sum(self._worst(running.generation) - running.slot.node.end for running in self._running)
        return needed <= self._settings.kv_cells

    def _worst(self, generation: Generation) -> int:
        request = generation.request
        return min(len(request.prompt) + request.max_tokens, self.context_tokens)

    def _join(self, backend: Backend, generation: Generation) -> None:
        try:
            slot, use = self._prefixes.claim(generation.request.prompt, generation.request.name)
        except Exception as error:  # noqa: BLE001  # one request's trouble is no other's
            self._fail(generation, _as_expert_error(error))
            return
        try:
            running = Running(
                generation, slot, backend=backend, metrics=self._metrics, context_tokens=self.context_tokens
            )
        except Exception as error:  # noqa: BLE001  # one request's trouble is no other's
            self._prefixes.release(slot, keep=False)
            self._fail(generation, _as_expert_error(error))
            return
        self._metrics.count_prefix(use.cells, use.memory)
        self._running.append(running)

    def _leave(self, running: Running, *, keep: bool = False) -> None:
        """Free a slot; a request that was given up takes its cells with it."""
        self._running.remove(running)
        running.close()
        self._prefixes.release(running.slot, keep=keep)

    def _step(self, backend: Backend) -> None:
        batch = plan(self._running, self._settings, self._costs)
        runs = [run for _, run in batch]
        try:
            self._prefixes.make_room(sum(len(run.tokens) for run in runs))
            started = time.perf_counter()
            backend.decode(runs)
        except EngineBrokenError:
            raise
        except Exception as error:  # noqa: BLE001  # the engine goes on
            self._lose(_as_expert_error(error))
            return
        self._failures = 0
        self._costs.learn(batch, time.perf_counter() - started)
        for running, run in batch:
            running.computed(run)
            if running.slot.checkpoint and running.slot.checkpoint == len(running.slot.tokens):
                self._prefixes.checkpoint(running.slot)
        for row, (running, run) in enumerate(batch):
            if run.outputs:
                self._advance(running, row)

    def _advance(self, running: Running, row: int) -> None:
        first = not running.started
        try:
            events = running.advance(row)
        except Exception as error:  # noqa: BLE001  # one request's trouble is no other's
            self._fail(running.generation, _as_expert_error(error))
            self._leave(running)
            return
        if events:
            self._outbox.append((running.generation, events))
            self._urgent = self._urgent or first or running.ended
        if running.ended:
            self._leave(running, keep=True)

    def _lose(self, error: ExpertError) -> None:
        """Fail every running request: after a failed step nothing is known about their cells."""
        _log.error("A step of %d requests failed: %s", len(self._running), error)
        self._metrics.failed_steps.inc()
        self._failures += 1
        for running in list(self._running):
            self._fail(running.generation, error)
            self._leave(running)
        if self._failures >= BROKEN_AFTER:
            raise EngineBrokenError(f"{self._failures} steps in a row failed, the last with: {error}")

    def _fail_all(self, error: ExpertError) -> None:
        with self._changed:
            generations = [*(running.generation for running in self._running), *self._waiting]
            self._waiting.clear()
            jobs = list(self._jobs)
            self._jobs.clear()
        for running in self._running:
            running.close()
        self._running.clear()
        for generation in generations:
            self._fail(generation, error)
        self._flush()
        if jobs and self._backend is not None:
            for job in jobs:
                job(self._backend)

    def _keep_prefixes(self) -> None:
        """Write what is worth it before the end."""
        self._prefixes.save_all()
        self._stored.close()

    def _observe(self) -> None:
        self._kv_used = self._prefixes.used
        self._metrics.queue_length.set(len(self._waiting))
        self._metrics.active_slots.set(len(self._running))
        self._metrics.kv_used.set(self._kv_used)


def _as_expert_error(error: Exception) -> ExpertError:
    """Return what the client of a failed request is told; what nobody foresaw goes to the log."""
    if isinstance(error, ExpertError):
        return error
    _log.error("A request failed by an error of the engine's own", exc_info=error)
    return StepError(f"The engine failed at this request ({type(error).__name__}).")


def _settle(future: asyncio.Future[None], error: ExpertError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # nobody has to ask for it
