"""What a step costs on this machine, learnt while it runs."""

from collections.abc import Sequence

from appliance.experts.backend import Run
from appliance.experts.engine.running import Running
from appliance.experts.tuning.costs import CostModel

SMOOTHING = 0.1
"""Weight of the newest step in the moving averages."""

FEW_TOKENS = 8
"""Prompt tokens in a step of the self-benchmark's from which the cost of one is taken."""


class StepCosts:
    """Seconds of a step by the number of streams, and of a prompt token that is added to it."""

    def __init__(self, measured: CostModel | None = None) -> None:
        """Begin with what the self-benchmark found."""
        self._streams: dict[int, float] = {}
        self._token: float | None = None
        if measured is not None:
            self._streams = {cost.tokens: cost.milliseconds / 1e3 for cost in measured.decode}
            self._token = (measured.step_ms(1, FEW_TOKENS) - measured.decode_ms(1)) / FEW_TOKENS / 1e3

    def learn(self, batch: Sequence[tuple[Running, Run]], seconds: float) -> None:
        """Take how long a step took; its requests are still as they were planned."""
        if any(run.outputs > 1 for _, run in batch):
            return
        streams = sum(running.started for running, _ in batch)
        prompt = sum(len(run.tokens) for running, run in batch if not running.started)
        if not prompt:
            self._streams[streams] = _average(self._streams.get(streams), seconds)
        elif streams == 0:
            if self._token is None:
                self._token = seconds / prompt
        elif (alone := self._alone(streams)) is not None:
            self._token = _average(self._token, max(seconds - alone, 0.0) / prompt)

    def prompt_tokens(self, streams: int, stall_factor: float) -> int | None:
        """Return how many prompt tokens keep a step within so many times its usual length; None if unknown."""
        alone = self._alone(streams)
        if alone is None or not self._token:
            return None
        return max(1, int((stall_factor - 1) * alone / self._token))

    def draft_tokens(self, chance: float, most: int) -> int:
        """Return how many tokens a lone stream should draft, given the chance that each of them comes true.

        One more is worth it as long as it costs less than the chance that it saves a step.
        """
        alone = self._streams.get(1)
        if alone is None or not self._token:
            return 0
        tokens = 0
        while tokens < most and chance ** (tokens + 1) * alone > self._token:
            tokens += 1
        return tokens

    def _alone(self, streams: int) -> float | None:
        """Return the length of a step without prompts, if need be of a like number of streams."""
        if not self._streams:
            return None
        nearest = min(self._streams, key=lambda known: abs(known - streams))
        return self._streams[nearest] * (streams / nearest if nearest > streams else 1.0)


def _average(old: float | None, new: float) -> float:
    return new if old is None else old + SMOOTHING * (new - old)
