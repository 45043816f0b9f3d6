"""What monitoring's deploy writes, judged by promtool where it is installed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from appliance.settings import load
from pyinfra_deploys import generated
from pyinfra_deploys.inventory import Machine
from pyinfra_deploys.monitoring.dashboards import DASHBOARDS
from pyinfra_deploys.monitoring.deploy import TEMPLATES, alert_rules, prometheus_config
from pyinfra_deploys.monitoring.panels import SOURCE
from pyinfra_deploys.monitoring.targets import daemons, exporters, listening
from scripts.metrics_reference import PROCESSES
from tests.unit.deploys.promql import metric_names

HOUSE = {
    "hub": """
        [node]
        roles = ["hub"]
        [overlay]
        kind = "wireguard"
        address = "10.77.0.1/24"
        """,
    "attic": """
        [node]
        roles = ["expert"]
        status_host = "0.0.0.0"
        [overlay]
        kind = "wireguard"
        address = "10.77.0.2/24"
        """,
    "cellar": """
        [node]
        roles = ["expert"]
        """,
    "quiet": """
        [node]
        roles = ["expert"]
        [monitoring]
        enabled = false
        """,
}
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: scripts/packages prometheus"
)
SAMPLES = ("", "_total", "_bucket", "_sum", "_count")


@pytest.fixture
def house(tmp_path: Path) -> dict[str, Machine]:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "all.toml").write_text("[monitoring]\nenabled = true\n")
    for name, text in HOUSE.items():
        (tmp_path / "hosts" / f"{name}.toml").write_text("\n".join(line.strip() for line in text.splitlines()))
    return {name: Machine(name, name, load(tmp_path, {}, name).settings) for name in HOUSE}


def test_who_is_asked_where(house: dict[str, Machine]) -> None:
    hub, all_of_them = house["hub"], tuple(house.values())
    assert [(one.node, one.address, one.key) for one in daemons(hub, all_of_them)] == [
        ("hub", "127.0.0.1:8101", False),
        ("attic", "10.77.0.2:8101", True),
    ]
    assert [(one.node, one.address) for one in exporters(hub, all_of_them)] == [
        ("hub", "10.77.0.1:9100"),
        ("attic", "10.77.0.2:9100"),
    ]
    assert listening(house["attic"].settings) == ("127.0.0.1", "10.77.0.2")
    assert listening(house["cellar"].settings) == ("127.0.0.1",)


def test_no_secret_is_in_the_configuration(house: dict[str, Machine]) -> None:
    found = yaml.safe_load(prometheus_config(house["hub"], tuple(house.values())))
    jobs = {job["job_name"]: job for job in found["scrape_configs"]}
    assert jobs["rouse-node-attic"]["authorization"] == {"credentials_file": "/etc/prometheus/rouse/keys/attic.key"}
    assert jobs["rouse-node-attic"]["static_configs"][0]["labels"] == {"job": "rouse-node", "node": "attic"}
    assert "authorization" not in jobs["rouse-node-hub"]
    assert jobs["rouse-hub"]["static_configs"][0]["targets"] == ["127.0.0.1:8100"]


@promtool
def test_promtool_finds_the_configuration_good(house: dict[str, Machine], tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(alert_rules(house["hub"].settings))
    config = tmp_path / "prometheus.yml"
    config.write_text(prometheus_config(house["hub"], tuple(house.values()), rules=str(rules)))
    _promtool("check", "config", "--syntax-only", str(config))
    _promtool("check", "rules", str(rules))


@promtool
def test_alerts_come_and_go(house: dict[str, Machine], tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(alert_rules(house["hub"].settings))
    shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)
    _promtool("test", "rules", str(tmp_path / "alerts_test.yml"))


def test_each_alert_is_tested(house: dict[str, Machine]) -> None:
    rules = yaml.safe_load(alert_rules(house["hub"].settings))
    tests = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    fired = {
        test["alertname"] for group in tests["tests"] for test in group["alert_rule_test"] if test.get("exp_alerts")
    }
    silent = {
        test["alertname"] for group in tests["tests"] for test in group["alert_rule_test"] if not test.get("exp_alerts")
    }
    assert fired == names
    assert silent == names


def test_every_metric_of_ours_exists(house: dict[str, Machine]) -> None:
    ours = {
        f"{metric.name.removesuffix('_total')}{suffix}"
        for _, _, registry in PROCESSES
        for metric in registry().collect()
        for suffix in SAMPLES
    }
    rules = yaml.safe_load(alert_rules(house["hub"].settings))
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    expressions += [query.expression for board in DASHBOARDS for panel in board.panels for query in panel.queries]
    expressions += [metric for board in DASHBOARDS for _, metric in board.choices]
    named = {name for expression in expressions for name in metric_names(expression)}
    assert {name for name in named if name.startswith(("rouse_", "process_"))} - ours == set()
    assert {name for name in named if not name.startswith(("rouse_", "process_", "node_"))} == {"ALERTS", "up"}


@promtool
def test_every_panel_can_be_asked(tmp_path: Path) -> None:
    rules = []
    for board in DASHBOARDS:
        for number, panel in enumerate(board.panels):
            for index, query in enumerate(panel.queries):
                text = query.expression.replace("$__rate_interval", "5m").replace("$__range", "1d")
                rules.append({"record": f"{board.uid}:{number}:{index}".replace("-", "_"), "expr": text})
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    _promtool("check", "rules", str(file))


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_dashboards_are_what_grafana_reads(board: object) -> None:
    document = json.loads(json.dumps(board.as_json()))  # type: ignore[attr-defined]
    assert len(document["uid"]) <= 40
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    variables = {variable["name"] for variable in document["templating"]["list"]}
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": SOURCE}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for target in panel["targets"]:
            used = {name for name in ("node", "expert") if f"${name}" in target["expr"]}
            assert used <= variables, f"{panel['title']} uses a variable that the dashboard lacks"


def test_metric_names() -> None:
    assert metric_names('sum by (node, job) (rate(a_total{b="c(d)"}[5m])) / on (x) group_left (y) e > bool 0.1') == {
        "a_total",
        "e",
    }
    assert metric_names("histogram_quantile(0.95, sum by (le) (rate(x_bucket[$__rate_interval]))) or vector(0)") == {
        "x_bucket"
    }


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_grafana_is_given() -> None:
    source = yaml.safe_load(generated.render(TEMPLATES / "grafana-source.yml.j2", uid=SOURCE, port=9090, interval="30"))
    assert source["datasources"][0]["uid"] == SOURCE
    assert source["datasources"][0]["url"] == "http://127.0.0.1:9090"
    provider = yaml.safe_load(generated.render(TEMPLATES / "grafana-dashboards.yml.j2", folder="/etc/grafana/rouse"))
    assert provider["providers"][0]["options"] == {"path": "/etc/grafana/rouse"}
    listed = generated.render(
        TEMPLATES / "grafana.sources.j2", repository="https://apt.grafana.com", keyring="/etc/apt/keyrings/grafana.gpg"
    )
    assert "Signed-By: /etc/apt/keyrings/grafana.gpg" in listed
    unit = generated.render(
        TEMPLATES / "grafana.service.conf.j2", address="10.77.0.1", port=3000, password="/x", allowed=("10.77.0.0/24",)
    )
    assert "GF_SERVER_HTTP_ADDR=10.77.0.1" in unit
    assert "LoadCredential=admin-password:/x" in unit
