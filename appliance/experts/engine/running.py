"""A request that runs in a slot, as the engine thread sees it."""

import time

from appliance.experts.backend import Backend, Run
from appliance.experts.chat.output import Output
from appliance.experts.engine.speculation import PromptLookup
from appliance.experts.errors import InvalidRequestError
from appliance.experts.events import Event, Finished, FinishReason, Timings, TokenLogprob
from appliance.experts.generation import Generation
from appliance.experts.metrics import ExpertMetrics
from appliance.experts.prefixes.tree import Cached


class Running:
    """State of a running request; owns its sampler until `close`."""

    def __init__(
        self,
        generation: Generation,
        slot: Cached,
        *,
        backend: Backend,
        metrics: ExpertMetrics,
        context_tokens: int,
    ) -> None:
        """Take a slot with the prompt's tokens that are known. Raises InvalidRequestError for a bad grammar."""
        request = generation.request
        self.generation = generation
        self.slot = slot
        self.started = False
        """Whether a token has been sampled: prefill is over."""
        self.ended = False
        self._backend = backend
        self._metrics = metrics
        self._output = Output(
            stops=request.stops, tools=request.tools, thinking=request.thinking, channels=request.channels
        )
        self._cached = len(slot.tokens)
        self._pending = request.prompt[self._cached :]
        self._room = min(request.max_tokens, context_tokens - len(request.prompt))
        self._draft: list[int] = []
        self.lookup = PromptLookup([token for token in request.prompt if token >= 0])
        self._generated = 0
        self._admitted = time.monotonic()
        self._first = self._last = 0.0
        self._sampler = backend.sampler(request.sampling)
        try:
            if request.grammar is not None:
                self._sampler.constrain(request.grammar)
            elif request.tools is not None and request.tools.forced:
                self._sampler.constrain(request.tools.grammar)
        except InvalidRequestError:
            self.close()
            raise

    @property
    def prefilling(self) -> bool:
        """Whether its prompt is still being computed."""
        return not self.started

    @property
    def waiting_tokens(self) -> int:
        """Tokens that are still to be computed before the next one can be sampled."""
        return len(self._pending)

    def draft(self, most: int) -> None:
        """Guess at most so many tokens of the answer, to be computed with the next one in a single run."""
        if most and self.started and len(self._pending) == 1:
            self._draft = self.lookup.guess(min(most, self._room - self._generated - 1))

    def next_run(self, most: int) -> Run:
        """Return at most so many of the pending tokens as a run, and what was drafted after the last of them."""
        if self.slot.checkpoint > len(self.slot.tokens):
            most = min(most, self.slot.checkpoint - len(self.slot.tokens))
        tokens = self._pending[:most]
        if len(tokens) < len(self._pending):
            return Run(self.slot.seq, len(self.slot.tokens), tokens, outputs=0)
        self._draft = self._draft[: most - len(tokens)]
        return Run(self.slot.seq, len(self.slot.tokens), tokens + self._draft, outputs=1 + len(self._draft))

    def computed(self, run: Run) -> None:
        """Note that the run's tokens are in the KV cache."""
        self.slot.tokens.extend(run.tokens)
        del self._pending[: len(run.tokens)]

    def advance(self, row: int) -> list[Event]:
        """Sample from the last batch: the next token, and those after it as long as they are what was drafted."""
        draft, self._draft = self._draft, []
        events: list[Event] = []
        accepted = 0
        for output in range(len(draft) + 1):
            token = self._sampler.sample(row, output)
            events += self._take(token, row, output)
            if self.ended or output == len(draft) or self._pending != [draft[output]]:
                break
            accepted += 1
        if draft:
            self._metrics.count_drafted(len(draft), accepted)
            kept = len(self.slot.tokens) - len(draft) + accepted
            del self.slot.tokens[self._backend.keep(self.slot.seq, kept) :]
        return events

    def _take(self, token: int | None, row: int, output: int) -> list[Event]:
        """Return what came of a sampled token."""
        self._tick()
        if token is None or self._backend.is_end(token):
            return self._finish("stop")
        self._generated += 1
        self._metrics.count_token()
        self.lookup.add(token)
        piece = self._backend.piece(token)
        events: list[Event] = list(self._output.push(piece, self._logprob(token, piece, row, output)))
        self._pending = [token]
        if (excess := self._output.opens()) is not None:
            self._begin_call(piece, excess)
        if self._output.done:
            return events + self._finish("stop")
        if self._generated >= self._room:
            return events + self._finish("length")
        return events

    def close(self) -> None:
        """Free the sampler."""
        self._sampler.close()

    def _logprob(self, token: int, piece: bytes, row: int, output: int) -> TokenLogprob | None:
        most = self.generation.request.top_logprobs
        if most is None:
            return None
        own, top = self._sampler.logprobs(row, token, most, output)
        return TokenLogprob(piece, own, tuple((self._backend.piece(other), value) for other, value in top))

    def _begin_call(self, piece: bytes, excess: int) -> None:
        """Constrain the sampler; replace the token by ones that end with the marker if it went beyond it."""
        tools = self.generation.request.tools
        if excess:
            kept = piece[: len(piece) - excess].decode(errors="replace")
            self._pending = self._backend.tokenize(kept, special=True)
        self._sampler.constrain(tools.grammar if tools else None)

    def _tick(self) -> None:
        now = time.monotonic()
        if self.started:
            self._metrics.inter_token.observe(now - self._last)
        else:
            self.started, self._first = True, now
            self._metrics.first_token.observe(now - self.generation.submitted)
        self._last = now

    def _finish(self, reason: FinishReason) -> list[Event]:
        self.ended = True
        events: list[Event] = list(self._output.flush())
        if reason == "stop" and self._output.called:
            reason = "tool_calls"
        timings = Timings(
            cache_n=self._cached,
            prompt_n=len(self.generation.request.prompt) - self._cached,
            prompt_ms=(self._first - self._admitted) * 1e3,
            predicted_n=self._generated,
            predicted_ms=(self._last - self._first) * 1e3,
            queue_ms=(self._admitted - self.generation.submitted) * 1e3,
        )
        events.append(Finished(reason, timings))
        return events
