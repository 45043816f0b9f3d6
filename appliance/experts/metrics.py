"""An expert's Prometheus metrics, in a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
INTER_TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)


class ExpertMetrics:
    """What an expert counts; safe to use from any thread."""

    def __init__(self, name: str) -> None:
        """Label every metric with the expert's name."""
        self.registry = registry = CollectorRegistry()

        def counter(metric: str, text: str) -> Counter:
            return Counter(f"rouse_expert_{metric}", text, ["expert"], registry=registry)

        def gauge(metric: str, text: str) -> Gauge:
            return Gauge(f"rouse_expert_{metric}", text, ["expert"], registry=registry).labels(name)

        def histogram(metric: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"rouse_expert_{metric}", text, ["expert"], registry=registry, buckets=buckets).labels(
                name
            )

        self._name = name
        self.tokens = 0
        """Tokens generated so far, for /health."""
        self._requests = Counter(
            "rouse_expert_requests", "HTTP requests", ["expert", "endpoint", "status"], registry=registry
        )
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens received").labels(name)
        self.cached_tokens = counter("prompt_tokens_cached", "Prompt tokens whose KV was there").labels(name)
        self._generated_tokens = counter("generated_tokens", "Tokens generated").labels(name)
        hits = Counter(
            "rouse_expert_prefix_hits",
            "Prompts whose beginning was known, by where it was",
            ["expert", "place"],
            registry=registry,
        )
        self._hits = {place: hits.labels(name, place) for place in ("cells", "memory")}
        self._misses = counter("prefix_misses", "Prompts whose beginning was not known").labels(name)
        self._drafted = counter("drafted_tokens", "Tokens guessed from the prompt").labels(name)
        self._accepted = counter("drafted_tokens_accepted", "Guessed tokens that came true").labels(name)
        self.failed_steps = counter("failed_steps", "Decode steps that failed").labels(name)
        self.first_token = histogram("first_token_seconds", "Arrival to first token", FIRST_TOKEN_SECONDS)
        self.inter_token = histogram("inter_token_seconds", "Token to token", INTER_TOKEN_SECONDS)
        self.queue_length = gauge("queue_length", "Requests waiting for a slot")
        self.active_slots = gauge("active_slots", "Slots that serve a request")
        self.kv_used = gauge("kv_cells_used", "KV cells in use, in tokens")
        self.kv_size = gauge("kv_cells", "KV cells there are, in tokens")

    def count_request(self, endpoint: str, status: int) -> None:
        """Count an answered request by its route and HTTP status."""
        self._requests.labels(self._name, endpoint, status).inc()

    def count_prefix(self, cells: int, memory: int) -> None:
        """Count a prompt by how many of its tokens were in KV cells, and how many came back from memory."""
        self.cached_tokens.inc(cells + memory)
        if memory:
            self._hits["memory"].inc()
        elif cells:
            self._hits["cells"].inc()
        else:
            self._misses.inc()

    def count_drafted(self, drafted: int, accepted: int) -> None:
        """Count guessed tokens, and those that came true."""
        self._drafted.inc(drafted)
        self._accepted.inc(accepted)

    def count_token(self) -> None:
        """Count a generated token; the engine thread alone calls it."""
        self.tokens += 1
        self._generated_tokens.inc()

    def add(self, collector: Collector) -> None:
        """Render another's metrics as well."""
        self.registry.register(collector)

    def render(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)
