"""When certificates end, for those who want to be warned."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.security.ca.store import Kind

type Ends = Mapping[tuple[Kind, str], float]
"""Unix time, by kind and name; of each the last certificate that counts."""


class CertificateCollector(Collector):
    """The certificates of a house as metrics, read when they are asked for."""

    def __init__(self, ends: Callable[[], Ends], registry: CollectorRegistry) -> None:
        """Take what returns when they end, and the registry to join."""
        self._ends = ends
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        family = GaugeMetricFamily(
            "rouse_hub_certificate_end_timestamp_seconds",
            "When a certificate of the house ends. A node renews its own when two thirds of its time are over.",
            labels=["kind", "name"],
        )
        for (kind, name), end in self._ends().items():
            family.add_metric([kind, name], end)
        yield family
