"""The rules that hassfest, Home Assistant's own linter, has for an integration's files."""

import ast
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import urlparse

import probatio
import pytest
import yaml
from awesomeversion import AwesomeVersion, AwesomeVersionStrategy
from homeassistant.components import sensor
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.loader import async_get_integration

from custom_components.rouse.actions import HINT_SCHEMA
from custom_components.rouse.messages import RepairNotice
from custom_components.rouse.sensor import DESCRIPTIONS, ENERGY_DESCRIPTIONS

FOLDER = Path(__file__).parents[2] / "custom_components" / "rouse"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
STRINGS = json.loads((FOLDER / "strings.json").read_text())
ICONS = json.loads((FOLDER / "icons.json").read_text())
SOURCES = {path: path.read_text() for path in sorted(FOLDER.glob("*.py"))}

TRANSLATION_KEY = re.compile(r"^(?!.+[_-]{2})(?![_-])[a-z0-9-_]+(?<![_-])$")

TIERS = {
    "bronze": """action-setup appropriate-polling brands common-modules config-flow-test-coverage config-flow
        dependency-transparency docs-actions docs-conditions docs-high-level-description
        docs-installation-instructions docs-removal-instructions docs-triggers entity-event-setup
        entity-unique-id has-entity-name runtime-data test-before-configure test-before-setup
        unique-config-entry""",
    "silver": """action-exceptions config-entry-unloading docs-configuration-parameters
        docs-installation-parameters entity-unavailable integration-owner log-when-unavailable
        parallel-updates reauthentication-flow test-coverage""",
    "gold": """devices diagnostics discovery-update-info discovery docs-data-update docs-examples
        docs-known-limitations docs-supported-devices docs-supported-functions docs-troubleshooting
        docs-use-cases dynamic-devices entity-category entity-device-class entity-disabled-by-default
        entity-translations exception-translations icon-translations reconfiguration-flow repair-issues
        stale-devices""",
    "platinum": "async-dependency inject-websession strict-typing",
}


def _https(value: str) -> str:
    if urlparse(value).scheme != "https":
        raise probatio.Invalid("no https address")
    return value


def _version(value: str) -> str:
    AwesomeVersion(value, ensure_strategy=[AwesomeVersionStrategy.SEMVER, AwesomeVersionStrategy.CALVER])
    return value


def _translation_key(value: str) -> str:
    if not TRANSLATION_KEY.match(value):
        raise probatio.Invalid(f"{value} is no translation key")
    return value


def _translation(value: Any) -> str:
    text = cv.string_with_no_html(value)
    if re.search(r"'{\w+}'", text):
        raise probatio.Invalid("placeholder in single quotes")
    if "[%" in text:
        raise probatio.Invalid("a custom integration's references are not resolved")
    if text != text.strip():
        raise probatio.Invalid("leading or trailing spaces")
    if re.search(r"(\w+://|www\.)\w", text):
        raise probatio.Invalid("an address, where a placeholder belongs")
    return text


def _icon(value: Any) -> str:
    icon = cv.string_with_no_html(value)
    if not icon.startswith("mdi:"):
        raise probatio.Invalid("no Material Design icon")
    return icon


MANIFEST_SCHEMA = probatio.Schema(
    {
        probatio.Required("domain"): str,
        probatio.Required("name"): str,
        probatio.Required("integration_type"): probatio.In(
            ["device", "entity", "hardware", "helper", "hub", "service", "system"]
        ),
        probatio.Required("config_flow"): True,
        probatio.Required("mqtt"): [str],
        probatio.Required("documentation"): _https,
        probatio.Required("issue_tracker"): _https,
        probatio.Required("quality_scale"): probatio.In([*TIERS, "custom"]),
        probatio.Required("dependencies"): [str],
        probatio.Required("after_dependencies"): [str],
        probatio.Required("codeowners"): [probatio.Match(r"@\w")],
        probatio.Required("iot_class"): probatio.In(
            ["assumed_state", "calculated", "cloud_polling", "cloud_push", "local_polling", "local_push"]
        ),
        probatio.Required("version"): _version,
        probatio.Optional("requirements"): [probatio.Match(r"[\w.-]+==[\w.]+\Z")],
    }
)

_FLOW = {
    probatio.Optional("flow_title"): _translation,
    probatio.Required("step"): {
        str: {
            probatio.Optional("title"): _translation,
            probatio.Optional("description"): _translation,
            probatio.Optional("data"): {str: _translation},
            probatio.Optional("data_description"): {str: _translation},
        }
    },
    probatio.Optional("error"): {str: _translation},
    probatio.Optional("abort"): {str: _translation},
}

STRINGS_SCHEMA = probatio.Schema(
    {
        probatio.Required("config"): _FLOW,
        probatio.Required("options"): _FLOW,
        probatio.Required("entity"): {
            cv.slug: {
                _translation_key: {
                    probatio.Optional("name"): _translation,
                    probatio.Optional("unit_of_measurement"): _translation,
                    probatio.Optional("state"): {_translation_key: _translation},
                    probatio.Optional("state_attributes"): {
                        _translation_key: {
                            probatio.Optional("name"): _translation,
                            probatio.Optional("state"): {_translation_key: _translation},
                        }
                    },
                }
            }
        },
        probatio.Required("exceptions"): {cv.slug: {probatio.Required("message"): _translation}},
        probatio.Required("config_subentries"): {
            cv.slug: {
                **_FLOW,
                probatio.Required("entry_type"): _translation,
                probatio.Required("initiate_flow"): {
                    probatio.Required("user"): _translation,
                    probatio.Optional("reconfigure"): _translation,
                },
            }
        },
        probatio.Required("issues"): {
            _translation_key: {
                probatio.Required("title"): _translation,
                probatio.Required("fix_flow"): _FLOW,
            }
        },
        probatio.Required("selector"): {
            _translation_key: {probatio.Required("options"): {_translation_key: _translation}}
        },
        probatio.Required("services"): {
            _translation_key: {
                probatio.Required("name"): _translation,
                probatio.Required("description"): _translation,
                probatio.Optional("fields"): {
                    str: {probatio.Required("name"): _translation, probatio.Required("description"): _translation}
                },
            }
        },
    }
)

ICONS_SCHEMA = probatio.Schema(
    {
        probatio.Required("entity"): {
            cv.slug: {
                _translation_key: {
                    probatio.Optional("default"): _icon,
                    probatio.Optional("state"): {_translation_key: _icon},
                }
            }
        },
        probatio.Required("services"): {_translation_key: {probatio.Required("service"): _icon}},
    }
)


def _literals(function: str, position: int | str) -> set[str]:
    """Collect the text constants that the sources pass to a function."""
    found: set[str] = set()
    for source in SOURCES.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == function:
                found |= _texts(node, position)
    return found


def _texts(call: ast.Call, position: int | str) -> set[str]:
    values = (
        call.args[position : position + 1]
        if isinstance(position, int)
        else [keyword.value for keyword in call.keywords if keyword.arg == position]
    )
    return {
        node.value
        for value in values
        for node in ast.walk(value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_manifest() -> None:
    MANIFEST_SCHEMA(MANIFEST)
    assert MANIFEST["domain"] == FOLDER.name
    keys = list(MANIFEST)
    assert keys == ["domain", "name", *sorted(keys[2:])], "hassfest wants this order"


async def test_the_loader_takes_it(hass: HomeAssistant) -> None:
    integration = await async_get_integration(hass, "rouse")

    assert integration.version == MANIFEST["version"]
    assert await integration.resolve_dependencies() is not None


def test_dependencies_cover_what_is_imported() -> None:
    imported = {
        match
        for source in SOURCES.values()
        for match in re.findall(r"from homeassistant\.components(?:\.| import )(\w+)", source)
    }
    always_there = {"binary_sensor", "diagnostics", "homeassistant", "repairs", "sensor", "switch", "update"}
    listed = {*MANIFEST["dependencies"], *MANIFEST["after_dependencies"]}

    assert imported - always_there <= listed


def test_it_ships_alone() -> None:
    for path, source in SOURCES.items():
        assert "appliance" not in source, path.name


def test_strings() -> None:
    STRINGS_SCHEMA(STRINGS)
    for flow in (STRINGS["config"], STRINGS["options"], *STRINGS["config_subentries"].values()):
        for step in flow["step"].values():
            assert step.get("data_description", {}).keys() <= step.get("data", {}).keys()


def test_the_english_translation_is_the_strings() -> None:
    assert json.loads((FOLDER / "translations" / "en.json").read_text()) == STRINGS


def test_icons() -> None:
    ICONS_SCHEMA(ICONS)
    for platform, keys in ICONS["entity"].items():
        for key, icons in keys.items():
            named = STRINGS["entity"][platform][key]
            assert icons.get("state", {}).keys() <= named.get("state", {}).keys()


def test_every_sensor_has_a_name_and_an_icon() -> None:
    descriptions = (*DESCRIPTIONS, *ENERGY_DESCRIPTIONS)
    assert {description.key for description in descriptions} | {"expert", "power"} == set(STRINGS["entity"]["sensor"])
    for description in descriptions:
        assert description.translation_key == description.key
        assert description.device_class or description.key in ICONS["entity"]["sensor"]
    states = STRINGS["entity"]["sensor"]["expert"]["state"]
    assert states.keys() == {"starting", "ready", "failed", "stopped"}
    assert sensor.DOMAIN in STRINGS["entity"]


def test_every_error_of_the_flow_is_translated() -> None:
    [flow] = [source for path, source in SOURCES.items() if path.stem == "config_flow"]
    errors = set(re.findall(r'errors\["base"\] = "(\w+)"', flow))
    # The base class aborts for these.
    aborts = _literals("async_abort", "reason") | {
        "already_configured",
        "already_in_progress",
        "reconfigure_successful",
    }
    steps = _literals("async_show_form", "step_id")
    flows = (
        STRINGS["config"],
        STRINGS["options"],
        *STRINGS["config_subentries"].values(),
        *(issue["fix_flow"] for issue in STRINGS["issues"].values()),
    )

    assert errors == STRINGS["config"]["error"].keys()
    assert aborts == {abort for one in flows for abort in one.get("abort", ())}
    assert steps == {step for one in flows for step in one["step"]}


def test_every_problem_of_a_notice_is_a_repair() -> None:
    assert set(get_args(get_type_hints(RepairNotice)["problem"])) == STRINGS["issues"].keys()


def test_the_action_is_described() -> None:
    described = yaml.safe_load((FOLDER / "services.yaml").read_text())
    assert described.keys() == STRINGS["services"].keys() == ICONS["services"].keys()
    for name, action in described.items():
        assert action["fields"].keys() == STRINGS["services"][name]["fields"].keys()
    assert {str(key) for key in HINT_SCHEMA.schema} == described["hint"]["fields"].keys()
    kinds = described["hint"]["fields"]["kind"]["selector"]["select"]
    assert set(kinds["options"]) == STRINGS["selector"][kinds["translation_key"]]["options"].keys()


def test_every_exception_is_translated() -> None:
    [replies] = [source for path, source in SOURCES.items() if path.stem == "replies"]
    failures = re.search(r"_FAILURES = frozenset\((.*?)\)", replies, re.DOTALL)
    assert failures
    hub = next(source for path, source in SOURCES.items() if path.stem == "hub")
    troubles = set(re.findall(r'return "(mqtt_\w+|hub_\w+)"', hub))
    used = (
        _literals("ChatError", 0)
        | _literals("UpdateCommandError", 0)
        | _literals("ConfigEntryNotReady", "translation_key")
        | _literals("ServiceValidationError", "translation_key")
        | set(re.findall(r'"(\w+)"', failures.group(1)))
        | troubles
    )

    assert used == STRINGS["exceptions"].keys()


def test_quality_scale_names_every_rule_with_reasons() -> None:
    scale = yaml.safe_load((FOLDER / "quality_scale.yaml").read_text())

    assert list(scale["rules"]) == " ".join(TIERS.values()).split()
    for rule, value in scale["rules"].items():
        status = value if isinstance(value, str) else value["status"]
        assert status in {"done", "todo", "exempt"}, rule
        assert status != "exempt" or value["comment"], rule


def test_the_manifest_claims_no_tier_with_open_rules() -> None:
    scale = yaml.safe_load((FOLDER / "quality_scale.yaml").read_text())["rules"]
    claimed = MANIFEST["quality_scale"]
    if claimed == "custom":
        return
    tiers = list(TIERS)[: list(TIERS).index(claimed) + 1]
    open_rules = [rule for tier in tiers for rule in TIERS[tier].split() if scale[rule] == "todo"]
    assert open_rules == []


@pytest.mark.parametrize("platform", ["binary_sensor", "conversation", "sensor", "switch", "update"])
def test_platforms_say_how_many_updates_run_at_once(platform: str) -> None:
    assert "\nPARALLEL_UPDATES = 0\n" in SOURCES[FOLDER / f"{platform}.py"]
