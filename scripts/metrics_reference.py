"""Writes the reference part of docs/metrics.md from the metrics themselves.

`python -m scripts.metrics_reference --write docs/metrics.md` replaces everything below the marker line; `--check`
only says whether that would change anything.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from appliance.agents.metrics import AgentMetrics
from appliance.backup.record import Record
from appliance.backup.record import metrics as backup_metrics
from appliance.bus.house_metrics import HouseCollector
from appliance.bus.messages import NodeTelemetry, Presence
from appliance.bus.metrics import BusMetrics
from appliance.bus.power_messages import NodeEnergy
from appliance.bus.update_messages import NodeUpdate
from appliance.experts.metrics import ExpertMetrics
from appliance.gateway.answer import Usage
from appliance.gateway.metrics import EndpointCollector, EndpointState, GatewayMetrics
from appliance.http_server import process_registry
from appliance.node.energy.monitor import EnergyMetrics
from appliance.node.sleeping.metrics import SleepMetrics
from appliance.node.status import NodeCollector
from appliance.node.supervised import ExpertLoad, ExpertState
from appliance.power.metrics import PowerMetrics
from appliance.security.ca.metrics import CertificateCollector

MARKER = "<!-- Everything below is written by scripts/metrics_reference.py; change the metrics instead. -->"


class _Expert:
    """An expert that the node's metrics can be asked about."""

    name = "small"
    state: ExpertState = "ready"
    restarts = 0
    load = ExpertLoad()


def hub() -> CollectorRegistry:
    """Return what the hub exports, with an expert."""
    registry = CollectorRegistry()
    BusMetrics(registry)
    CertificateCollector(lambda: {("node", "attic"): 0.0}, registry)
    heard = HouseCollector(registry).node("attic")
    if heard is not None:
        heard.presence = Presence(state="online")
        heard.update = NodeUpdate(installed="1", state="idle")
        heard.energy = NodeEnergy(source="plug", watts=0, used_kwh=0, saved_kwh=0, since=0)
    AgentMetrics(registry)
    gateway = GatewayMetrics(registry)
    gateway.gaps("small").note(0.01)
    gateway.count_tokens("small", Usage(1, 1))
    EndpointCollector(lambda: [EndpointState("small", "attic", "closed", 0, 0.0)], registry)
    PowerMetrics(registry)
    return registry


def node() -> CollectorRegistry:
    """Return what a node exports, with an expert."""
    registry = CollectorRegistry()
    BusMetrics(registry)
    telemetry = NodeTelemetry(cpu=0, memory=0, disk=0, uptime=0, temperature=0)
    NodeCollector(experts=[_Expert()], telemetry=lambda: telemetry, registry=registry)
    SleepMetrics(registry)
    EnergyMetrics(registry)
    return registry


def expert() -> CollectorRegistry:
    """Return what an expert exports."""
    return ExpertMetrics("small").registry


def backup() -> CollectorRegistry:
    """Return what a backup leaves for the node exporter."""
    return backup_metrics(Record())


PROCESSES: tuple[tuple[str, str, Callable[[], CollectorRegistry]], ...] = (
    ("The hub", "`GET /metrics` of the gateway, port 8100, with the gateway's key.", hub),
    ("A node", "`GET /metrics` of the node daemon, port 8101, on this machine only unless it is opened.", node),
    ("An expert", "`GET /metrics` of the expert, on the port that it announces, with the experts' key.", expert),
    ("Backups", "In a text file that the node exporter passes on, port 9100.", backup),
    ("The hub and the node daemon besides", "What Python and the kernel know of the process.", process_registry),
)


def reference() -> str:
    """Return the reference in Markdown: one table for each process."""
    parts = []
    for title, where, registry_of in PROCESSES:
        parts += [f"## {title}", "", where, "", "| metric | type | labels | what |", "|---|---|---|---|"]
        parts += [_row(metric, labels) for metric, labels in described(registry_of())]
        parts.append("")
    return "\n".join(parts)


def described(registry: CollectorRegistry) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Yield each metric and its labels, in the order in which they were made."""
    labelled = {
        collector._name: tuple(collector._labelnames)  # noqa: SLF001 - it is told nowhere else
        for collector in registry._collector_to_names  # noqa: SLF001 - it is told nowhere else
        if isinstance(collector, MetricWrapperBase)
    }
    for metric in registry.collect():
        found = dict.fromkeys(label for sample in metric.samples for label in sample.labels if label != "le")
        yield metric, labelled.get(metric.name, tuple(found))


def _row(metric: Metric, labels: tuple[str, ...]) -> str:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {metric.type} | {shown} | {metric.documentation} |"


def updated(document: str) -> str:
    """Return the document with its reference part made anew.

    Raises:
        ValueError: the marker line is missing.
    """
    head, marker, _ = document.partition(MARKER)
    if not marker:
        raise ValueError(f"there is no line {MARKER}")
    return f"{head}{marker}\n\n{reference()}"


def main() -> None:
    """Write or check the document that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m scripts.metrics_reference", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="bring the document up to date")
    mode.add_argument("--check", action="store_true", help="exit with 1 if the document is out of date")
    parser.add_argument("document", type=Path)
    arguments = parser.parse_args()
    old = arguments.document.read_text(encoding="utf-8")
    new = updated(old)
    if arguments.write:
        arguments.document.write_text(new, encoding="utf-8")
    elif old != new:
        sys.exit(f"{arguments.document} is out of date: run python -m scripts.metrics_reference --write")


if __name__ == "__main__":
    main()
