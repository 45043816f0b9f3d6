"""Several answers at once."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence

from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.events import Event
from appliance.experts.generation import Generation, GenerationRequest
from appliance.experts.http.requests import LARGEST_SEED


def with_choices(request: GenerationRequest, count: int) -> list[GenerationRequest]:
    """Return the request so many times; a given seed is counted up."""
    seed = request.sampling.seed
    if count == 1 or seed is None:
        return [request] * count
    return [
        dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, seed=(seed + index) & LARGEST_SEED))
        for index in range(count)
    ]


def submit_all(scheduler: Scheduler, requests: Sequence[GenerationRequest]) -> list[Generation]:
    """Submit all requests, or none if one is refused."""
    generations: list[Generation] = []
    try:
        for request in requests:
            generations.append(scheduler.submit(request))  # noqa: PERF401  # what was submitted must be known
    except BaseException:
        for generation in generations:
            generation.cancel()
        raise
    return generations


async def merged(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, list[Event]]]:
    """Yield the events of all generations as they come, with the generation's index."""
    if len(generations) == 1:
        async for events in generations[0]:
            yield 0, events
        return
    iterators = [aiter(generation) for generation in generations]
    tasks = {asyncio.ensure_future(anext(iterator, None)): index for index, iterator in enumerate(iterators)}
    try:
        while tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = tasks.pop(task)
                if (arrived := task.result()) is not None:
                    yield index, arrived
                    tasks[asyncio.ensure_future(anext(iterators[index], None))] = index
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
