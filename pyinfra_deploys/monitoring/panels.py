"""Grafana's dashboards from a few words for each panel.

The JSON is what Grafana 10 and newer reads (schema version 39):
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

SOURCE = "rouse-prometheus"
"""Unique id of the data source, in its provisioning file and in every panel."""
_SCHEMA = 39
_WIDTH = 24

Unit = Literal[
    "short", "percentunit", "s", "bytes", "Bps", "watt", "kwatth", "celsius", "reqps", "none", "dateTimeFromNow"
]
Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel shows: an expression, and what its lines are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel."""

    title: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Kind = "timeseries"
    width: int = 12
    height: int = 8
    stacked: bool = False
    names: tuple[tuple[str, str], ...] = ()
    """What values are called."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    choices: tuple[tuple[str, str], ...] = ()
    """Variables that people choose: a label's name, and the metric whose values it takes."""

    def as_json(self) -> dict[str, Any]:
        """Return what Grafana reads."""
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["rouse"],
            "schemaVersion": _SCHEMA,
            "version": 1,
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-24h", "to": "now"},
            "timezone": "browser",
            "links": [
                {"type": "dashboards", "tags": ["rouse"], "title": "Rouse", "asDropdown": True, "keepTime": True}
            ],
            "templating": {"list": [_choice(label, metric) for label, metric in self.choices]},
            "panels": list(_placed(self.panels)),
        }


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": SOURCE}


def _choice(label: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {label})"
    return {
        "type": "query",
        "name": label,
        "label": label.capitalize(),
        "datasource": _source(),
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": f"choice-{label}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Lay panels out from left to right, in rows as high as their highest one."""
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _WIDTH:
            x, y, row = 0, y + row, 0
        yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
        x, row = x + panel.width, max(row, panel.height)


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in {"stat", "table", "bargauge"}
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
        if panel.stacked:
            custom["stacking"] = {"mode": "normal", "group": "A"}
    mappings = [
        {"type": "value", "options": {value: {"text": text, "index": index}}}
        for index, (value, text) in enumerate(panel.names)
    ]
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": _source(),
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": custom, "mappings": mappings},
            "overrides": [],
        },
        "options": _options(panel.kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _source(),
                "expr": query.expression,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _options(kind: Kind) -> dict[str, Any]:
    if kind in {"stat", "bargauge"}:
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if kind == "table":
        return {"showHeader": True}
    return {"legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
