"""Which tokens a step computes."""

from collections.abc import Sequence

from appliance.experts.backend import Run
from appliance.experts.engine.costs import StepCosts
from appliance.experts.engine.running import Running
from appliance.experts.settings import EngineSettings

CAUTIOUS_TOKENS = 2
"""Prompt tokens in a step while it is not known how long they take."""


def plan(running: Sequence[Running], settings: EngineSettings, costs: StepCosts) -> list[tuple[Running, Run]]:
    """Return the step's runs: first every request that is producing tokens, then prompts.

    Prompts share what is left of `batch_tokens`, in equal parts in the order of their arrival, so that a short one is
    never stuck behind a long one. When there are streams to keep flowing, they get no more than `prefill_chunk`, and
    each of them adds no more to the step than `stall_factor` allows. A request that is alone may draft tokens, where
    that pays.
    """
    budget = max(settings.batch_tokens, settings.slots)
    if len(running) == 1:
        running[0].draft(costs.draft_tokens(running[0].lookup.chance, settings.draft_tokens))
    batch: list[tuple[Running, Run]] = []
    prompts: list[Running] = []
    for request in running:
        if request.started:
            run = request.next_run(budget)
            budget -= len(run.tokens)
            batch.append((request, run))
        else:
            prompts.append(request)
    if batch and prompts:
        bearable = costs.prompt_tokens(len(batch), settings.stall_factor) or CAUTIOUS_TOKENS
        budget = min(budget, settings.prefill_chunk, bearable * len(prompts))
    for index, request in enumerate(prompts):
        share = min(-(-budget // (len(prompts) - index)), request.waiting_tokens)
        if share > 0:
            run = request.next_run(share)
            batch.append((request, run))
            budget -= len(run.tokens)
    return batch
