"""Tunes a loaded model: from what is known of this machine, else by measuring."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import llama_cpp

from appliance.experts.llama.devices import cpu_features, cpu_variant, devices
from appliance.experts.llama.identity import fingerprint
from appliance.experts.settings import EngineSettings
from appliance.experts.tuning.costs import CostModel
from appliance.experts.tuning.machine import processor, usable_cores
from appliance.experts.tuning.measure import Tunable, measure, thread_candidates
from appliance.experts.tuning.store import Subject, TuningStore

_log = logging.getLogger(__name__)


class TunableBackend(Tunable, Protocol):
    """A backend that takes over what was found."""

    costs: CostModel | None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a backend runs with now."""

    subject: Subject
    threads: int
    costs: CostModel
    measured_seconds: float | None
    """None if it was known already."""
    doubt: str | None
    """Why it was not kept."""


def tune(
    backend: TunableBackend, *, model: Path, settings: EngineSettings, store: TuningStore, anew: bool = False
) -> Tuned:
    """Give an idle backend the fastest number of threads and its costs.

    A doubtful measurement is not kept, and of it the costs alone are used: the threads are then as many as
    there are physical cores. `anew` measures even if the result is known.

    Raises:
        OSError: the model file can't be read.
    """
    subject = describe(model, settings)
    known = None if anew else store.load(subject)
    if known is not None:
        backend.set_threads(known.threads)
        backend.costs = known.costs
        return Tuned(subject, known.threads, known.costs, measured_seconds=None, doubt=None)
    found = measure(
        backend,
        slots=settings.slots,
        batch_tokens=subject.batch_tokens,
        candidates=thread_candidates(subject.physical_cores, subject.logical_cores),
    )
    threads = subject.physical_cores if found.doubt else found.threads
    backend.set_threads(threads)
    backend.costs = found.costs
    if found.doubt:
        _log.warning("The self-benchmark is not kept: %s. `rouse tune` measures again.", found.doubt)
    else:
        store.keep(subject, threads=threads, costs=found.costs)
    _log.info(
        "%s: %d threads; a step of one token takes %.1f ms, one of %d sequences %.1f ms, prefill %.2f ms a token",
        model.name,
        threads,
        found.costs.decode_ms(1),
        settings.slots,
        found.costs.decode_ms(settings.slots),
        found.costs.prefill_ms_per_token,
    )
    return Tuned(subject, threads, found.costs, measured_seconds=found.seconds, doubt=found.doubt)


def describe(model: Path, settings: EngineSettings) -> Subject:
    """Return what a measurement of a model on this machine is a measurement of.

    Raises:
        OSError: the model file can't be read.
    """
    chip = processor()
    others = [f"{device.backend}:{device.description}" for device in devices() if device.kind != "cpu"]
    backend = [
        cpu_variant() or "native",
        *cpu_features(),
        *others,
        f"gpu_layers={settings.gpu_layers}",
        *settings.workers,
    ]
    return Subject(
        processor=chip.get("model name", "unknown"),
        microcode=chip.get("microcode", "unknown"),
        physical_cores=usable_cores(),
        logical_cores=len(os.sched_getaffinity(0)),
        backend=" ".join(backend),
        llama_cpp=llama_cpp.__version__,
        model=fingerprint(model),
        slots=settings.slots,
        batch_tokens=max(settings.batch_tokens, settings.slots),
    )
