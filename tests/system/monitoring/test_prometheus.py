"""The real Prometheus with our configuration, asking a real hub, a real node and a real node exporter."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from appliance.backup.record import METRICS_NAME, Record, RecordBook
from appliance.bus.client import Bus
from appliance.bus.messages import Presence
from appliance.bus.topics import NODE_STATUS
from appliance.security.broker import connect_to
from appliance.security.layout import secret_file
from appliance.settings import Settings, load
from pyinfra_deploys.inventory import Machine
from pyinfra_deploys.monitoring.dashboards import DASHBOARDS
from pyinfra_deploys.monitoring.deploy import alert_rules, prometheus_config
from scripts.house.appliance import REPOSITORY
from scripts.house.processes import child, free_port, tail
from tests.unit.deploys.promql import metric_names

PATIENCE_SECONDS = 90.0

pytestmark = pytest.mark.broker


@dataclass
class Monitored:
    """Everything runs; this asks Prometheus."""

    http: aiohttp.ClientSession
    url: str
    exporter: str
    folder: Path
    settings: Settings

    async def ask(self, path: str, **query: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            document = await answer.json()
            assert document["status"] == "success", document
            return document["data"]

    async def until(self, what: str, wanted: Callable[[Any], bool], path: str, **query: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        found: Any = None
        while time.monotonic() < deadline:
            try:
                found = await self.ask(path, **query)
            except (aiohttp.ClientError, AssertionError) as error:
                found = error
            else:
                if wanted(found):
                    return found
            await asyncio.sleep(0.2)
        raise AssertionError(f"{what} was not seen: {found}\n{tail(self.folder / 'prometheus.log')}")


@pytest.fixture
async def monitored(tmp_path: Path) -> AsyncIterator[Monitored]:
    """A hub, a node on it, a node exporter, and Prometheus with the rendered configuration."""
    for program in ("prometheus", "prometheus-node-exporter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: scripts/packages {program}")
    config_dir, metrics = tmp_path / "etc", tmp_path / "metrics"
    config_dir.mkdir()
    metrics.mkdir()
    ports = {name: free_port() for name in ("gateway", "status", "broker", "prometheus", "exporter")}
    (config_dir / "rouse.toml").write_text(f"""
[node]
name = "attic"
telemetry_interval = 1
status_port = {ports["status"]}
[paths]
state = {json.dumps(str(tmp_path / "state"))}
[gateway]
port = {ports["gateway"]}
[broker]
listen_port = {ports["broker"]}
[monitoring]
enabled = true
scrape_interval = 1
textfiles = {json.dumps(str(metrics))}
prometheus_port = {ports["prometheus"]}
node_exporter_port = {ports["exporter"]}
""")
    settings = load(config_dir, {}, "attic").settings
    attic = Machine("attic", "attic", settings)
    rules, config = tmp_path / "alerts.yml", tmp_path / "prometheus.yml"
    # Waiting times are for houses; what is tested is that an alert becomes one.
    groups = yaml.safe_load(alert_rules(settings))
    for group in groups["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    rules.write_text(yaml.safe_dump(groups))
    key = secret_file(tmp_path / "state", "gateway.key")
    config.write_text(prometheus_config(attic, (attic,), rules=str(rules), key=str(key)))
    RecordBook(tmp_path / "state" / "backup", metrics=metrics).write(Record(attempted=1, succeeded=1))
    assert (metrics / METRICS_NAME).exists()

    async with AsyncExitStack() as stack:
        environment = {"PATH": "/usr/bin:/bin", "ROUSE_CONFIG_DIR": str(config_dir), "HOME": str(tmp_path)}
        for name in ("hub", "node"):
            command = [sys.executable, "-m", "appliance", name]
            environment["PYTHONPATH"] = str(REPOSITORY)
            await stack.enter_async_context(child(command, log=tmp_path / f"{name}.log", environment=environment))
        exporter = f"127.0.0.1:{ports['exporter']}"
        await stack.enter_async_context(
            child(
                [
                    "prometheus-node-exporter",
                    f"--web.listen-address={exporter}",
                    f"--collector.textfile.directory={metrics}",
                ],
                log=tmp_path / "exporter.log",
            )
        )
        await stack.enter_async_context(
            child(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={tmp_path / 'data'}",
                    f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
                ],
                log=tmp_path / "prometheus.log",
            )
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Monitored(http, f"http://127.0.0.1:{ports['prometheus']}", exporter, tmp_path, settings)


async def test_all_is_asked_and_alerts_are_judged(monitored: Monitored) -> None:
    jobs = {"prometheus", "rouse-hub", "rouse-node", "node"}

    def all_up(found: Any) -> bool:
        return {target["labels"]["job"]: target["health"] for target in found["activeTargets"]} == dict.fromkeys(
            jobs, "up"
        )

    found = await monitored.until("every target up", all_up, "targets")
    assert {target["labels"]["node"] for target in found["activeTargets"]} == {"attic"}

    def has_result(found: Any) -> bool:
        return bool(found["result"])

    state = await monitored.until(
        "the node's state", has_result, "query", query='rouse_house_node_state{state="awake"} == 1'
    )
    assert state["result"][0]["metric"]["node"] == "attic"
    await monitored.until(
        "the node's telemetry", has_result, "query", query='rouse_node_memory_ratio{node="attic"} > 0'
    )
    backup = await monitored.until(
        "the backup's metrics", has_result, "query", query="rouse_backup_last_success_timestamp_seconds"
    )
    assert backup["result"][0]["value"][1] == "1"

    # Another machine of which the hub hears keeps its own name.
    async with Bus(connect_to(monitored.settings), identifier="test") as bus:
        await bus.keep(NODE_STATUS, Presence(state="offline"), node="cellar")
        lost = 'rouse_house_node_state{node="cellar", state="lost"} == 1'
        await monitored.until("the other node", has_result, "query", query=lost)

    def too_old(found: Any) -> bool:
        return any(
            alert["labels"]["alertname"] == "BackupTooOld" and alert["state"] == "firing" for alert in found["alerts"]
        )

    await monitored.until("the alert", too_old, "alerts")

    rules = await monitored.ask("rules")
    judged = [rule for group in rules["groups"] for rule in group["rules"]]
    bad = [(rule["name"], rule.get("lastError")) for rule in judged if rule["health"] == "err"]
    assert judged
    assert bad == []


async def test_every_metric_of_the_dashboards_is_really_there(monitored: Monitored) -> None:
    """The node exporter's names are its own: ask the real one."""
    await monitored.until("Prometheus", bool, "status/config")
    async with monitored.http.get(f"http://{monitored.exporter}/metrics") as answer:
        text = await answer.text()
    there = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    wanted = {
        name
        for board in DASHBOARDS
        for panel in board.panels
        for query in panel.queries
        for name in metric_names(query.expression)
        if name.startswith("node_")
    }
    rules = yaml.safe_load((monitored.folder / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            wanted |= {name for name in metric_names(rule["expr"]) if name.startswith("node_")}
    wanted |= {metric for board in DASHBOARDS for _, metric in board.choices if metric.startswith("node_")}
    assert wanted - there == set()
    for board in DASHBOARDS:
        for panel in board.panels:
            for query in panel.queries:
                text = query.expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
                await monitored.ask("query", query=text.replace("$node", ".*").replace("$expert", ".*"))


async def test_a_wrong_key_is_seen_as_such(monitored: Monitored) -> None:
    config = yaml.safe_load((monitored.folder / "prometheus.yml").read_text())
    key = next(job for job in config["scrape_configs"] if job["job_name"] == "rouse-hub")["authorization"]

    def up(found: Any) -> bool:
        return any(
            target["labels"]["job"] == "rouse-hub" and target["health"] == "up" for target in found["activeTargets"]
        )

    await monitored.until("the hub", up, "targets")
    original = Path(key["credentials_file"]).read_text()
    Path(key["credentials_file"]).write_text("not-the-key\n")

    def refused(found: Any) -> bool:
        return any(
            target["labels"]["job"] == "rouse-hub" and "401" in target["lastError"] for target in found["activeTargets"]
        )

    # Prometheus reads the file anew for each request.
    await monitored.until("the refusal", refused, "targets")
    Path(key["credentials_file"]).write_text(original)
    await monitored.until("the hub again", up, "targets")
