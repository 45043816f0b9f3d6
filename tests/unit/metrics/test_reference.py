import re
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from scripts.metrics_reference import PROCESSES, described, hub, node, updated
from tests.unit.gateway.conftest import KEY, Gateway, answers

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "metrics.md"


def names(registry: CollectorRegistry) -> set[str]:
    return {metric.name for metric, _ in described(registry)}


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == updated(text), "run python -m scripts.metrics_reference --write docs/metrics.md"


def test_every_metric_is_explained_and_named_as_prometheus_wants_it() -> None:
    for _, _, registry in PROCESSES:
        for metric, _ in described(registry()):
            assert metric.documentation, metric.name
            assert re.fullmatch(r"(rouse|process|python)_[a-z_]+", metric.name)


async def test_the_gateway_exports_what_is_documented(gateway: Gateway) -> None:
    await gateway.add("spare", answers("spare"))
    async with gateway.post() as response:
        assert response.status == 200
    async with gateway.http.get(f"{gateway.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}) as response:
        families = {family.name for family in text_string_to_metric_families(await response.text())}
    process = {name for name in families if not name.startswith("rouse_")}
    created = {name for name in families if name.endswith("_created")}
    documented = {name for name in names(hub()) if name.startswith("rouse_gateway_")}
    assert families - process - created == documented
    assert "process_resident_memory_bytes" in process


def test_labels_are_told() -> None:
    labels = {metric.name: found for metric, found in described(hub())}
    assert labels["rouse_gateway_requests"] == ("path", "status", "expert")
    assert labels["rouse_gateway_breaker_state"] == ("expert", "node", "state")
    assert "rouse_node_expert_restarts" in names(node())


def test_check_and_write(tmp_path: Path) -> None:
    def run(mode: str) -> int:
        command = [sys.executable, "-m", "scripts.metrics_reference", mode, str(document)]
        return subprocess.run(command, check=False, cwd=ROOT, capture_output=True).returncode

    document = tmp_path / "metrics.md"
    document.write_text(DOCUMENT.read_text(encoding="utf-8") + "stale", encoding="utf-8")
    assert run("--check") == 1
    assert run("--write") == 0
    assert run("--check") == 0
    assert document.read_bytes() == DOCUMENT.read_bytes()
