import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

from appliance.bus.asyncapi import as_yaml, document
from appliance.bus.topics import ALL

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "asyncapi.yaml"
SCHEMA = Path(__file__).parent / "asyncapi" / "3.0.0.schema.json"


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_the_document_is_up_to_date() -> None:
    stale = "run python -m appliance.bus.asyncapi --write docs/asyncapi.yaml"
    assert DOCUMENT.read_text(encoding="utf-8") == as_yaml(), stale


def test_the_text_is_the_document() -> None:
    assert yaml.safe_load(as_yaml()) == json.loads(json.dumps(document()))


def test_it_fits_the_schema_of_asyncapi() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = [
        f"{error.json_path}: {error.message[:300]}"
        for error in Draft7Validator(schema).iter_errors(yaml.safe_load(as_yaml()))
    ]
    assert errors == []


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    for reference in references(whole):
        at: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_every_topic_is_there_with_its_delivery() -> None:
    whole = document()
    bindings = {
        operation["channel"]["$ref"].rpartition("/")[2]: (operation["action"], operation["bindings"]["mqtt"])
        for operation in whole["operations"].values()
    }
    assert list(whole["channels"]) == [topic.name for topic in ALL]
    for topic in ALL:
        channel = whole["channels"][topic.name]
        assert channel["address"] == topic.template
        assert tuple(channel.get("parameters", ())) == topic.parameters
        action, binding = bindings[topic.name]
        assert action == ("send" if topic.sender == "hub" else "receive")
        assert (binding["qos"], binding["retain"]) == (topic.qos, topic.retain)


def test_check_and_write(tmp_path: Path) -> None:
    def run(mode: str) -> int:
        command = [sys.executable, "-m", "appliance.bus.asyncapi", mode, str(path)]
        return subprocess.run(command, check=False, cwd=ROOT, capture_output=True).returncode

    path = tmp_path / "asyncapi.yaml"
    assert run("--check") == 1
    assert run("--write") == 0
    assert run("--check") == 0
    assert path.read_bytes() == DOCUMENT.read_bytes()
