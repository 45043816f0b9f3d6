"""Writes docs/asyncapi.yaml, the bus as an AsyncAPI 3.0 document, from the topics and messages.

`python -m appliance.bus.asyncapi --write docs/asyncapi.yaml` brings it up to date, and `--check` says
whether that is needed. Operations are the hub's: it sends what it publishes and receives the rest.

Specification: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter

from appliance.bus.topics import ALL, CHAT_REQUEST, MAX_PAYLOAD_BYTES, REPLY, Topic

_HEAD = "# Written by appliance/bus/asyncapi.py from the topics and messages; change those instead.\n"
_MQTT_BINDING = "0.2.0"
_PARAMETERS = {
    "node": "Name of a node.",
    "expert": "Name of an expert, unique on its node.",
    "agent": "Name of an agent.",
    "client": "Name of a client, which it gives in its requests.",
}

type Document = dict[str, Any]


def document() -> Document:
    """Return the AsyncAPI document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Rouse bus",
            "version": "1.0.0",
            "description": (
                "Messages between hub, nodes and Home Assistant. Payloads are JSON objects of at most "
                f"{MAX_PAYLOAD_BYTES} bytes. A reader ignores fields that it does not know, and drops a "
                "message that does not fit. An incompatible change raises the version in the topics."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"mqtt": _server("mqtt", 1883), "mqtts": _server("mqtts", 8883)},
        "channels": {topic.name: _channel(topic) for topic in ALL},
        "operations": dict(_operation(topic) for topic in ALL),
        "components": {
            "messages": {_message_name(kind): _message(kind) for topic in ALL for kind in message_types(topic)},
            "schemas": _schemas(),
            "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
            "securitySchemes": {"user": {"type": "userPassword", "description": "User and password at the broker."}},
        },
    }


def message_types(topic: Topic[Any]) -> tuple[type[BaseModel], ...]:
    """Return the message's type, or the members of a union."""
    if isinstance(topic.message, type):
        return (topic.message,)
    union, *_ = get_args(topic.message)
    return get_args(union)


def _server(protocol: str, port: int) -> Document:
    return {
        "host": f"{{host}}:{port}",
        "protocol": protocol,
        "description": "The hub's own broker, or the one that Home Assistant uses.",
        "variables": {"host": {"description": "Name or address of the broker.", "default": "localhost"}},
        "security": [{"$ref": "#/components/securitySchemes/user"}],
    }


def _channel(topic: Topic[Any]) -> Document:
    channel: Document = {"address": topic.template, "summary": topic.summary}
    if topic.parameters:
        channel["parameters"] = {name: {"$ref": f"#/components/parameters/{name}"} for name in topic.parameters}
    channel["messages"] = {
        _message_name(kind): {"$ref": f"#/components/messages/{_message_name(kind)}"} for kind in message_types(topic)
    }
    return channel


def _operation(topic: Topic[Any]) -> tuple[str, Document]:
    action = "send" if topic.sender == "hub" else "receive"
    operation: Document = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{topic.summary} Sent by {'the' if topic.sender == 'hub' else 'a'} {topic.sender}.",
        "bindings": {
            "mqtt": {"qos": topic.qos, "retain": topic.retain, "bindingVersion": _MQTT_BINDING},
        },
        "messages": _message_references(topic),
    }
    if topic is CHAT_REQUEST:
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{REPLY.name}"},
            "messages": _message_references(REPLY),
        }
    return action + topic.name[0].upper() + topic.name[1:], operation


def _message_references(topic: Topic[Any]) -> list[Document]:
    return [{"$ref": f"#/channels/{topic.name}/messages/{_message_name(kind)}"} for kind in message_types(topic)]


def _message_name(kind: type[BaseModel]) -> str:
    return kind.__name__[0].lower() + kind.__name__[1:]


def _message(kind: type[BaseModel]) -> Document:
    return {
        "name": _message_name(kind),
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }


def _schemas() -> Document:
    kinds = {kind.__name__: TypeAdapter(kind) for topic in ALL for kind in message_types(topic)}
    _, schemas = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in kinds.items()],
        ref_template="#/components/schemas/{model}",
    )
    return {name: _as_asyncapi(schema) for name, schema in sorted(schemas["$defs"].items())}


def _as_asyncapi(schema: Any) -> Any:
    """Adapt a JSON Schema of pydantic's.

    AsyncAPI's discriminator is only the name of the property, and that property must be there, though the
    model fills it in.
    """
    if isinstance(schema, list):
        return [_as_asyncapi(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    adapted = {key: _as_asyncapi(value) for key, value in schema.items()}
    if isinstance(adapted.get("discriminator"), dict) and "propertyName" in adapted["discriminator"]:
        adapted["discriminator"] = adapted["discriminator"]["propertyName"]
    constants = [name for name, part in schema.get("properties", {}).items() if "const" in part]
    if constants:
        adapted["required"] = sorted({*adapted.get("required", []), *constants})
    return adapted


class _Dumper(yaml.SafeDumper):
    """Writes everything out, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's interface
        return True


def as_yaml() -> str:
    """Return the document's text, always the same for the same topics and messages."""
    return _HEAD + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def main() -> None:
    """Write or check the document that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m appliance.bus.asyncapi", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="bring the document up to date")
    mode.add_argument("--check", action="store_true", help="exit with 1 if the document is out of date")
    parser.add_argument("document", type=Path)
    arguments = parser.parse_args()
    path: Path = arguments.document
    if arguments.write:
        path.write_text(as_yaml(), encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != as_yaml():
        sys.exit(f"{path} is out of date: run python -m appliance.bus.asyncapi --write {path}")


if __name__ == "__main__":
    main()
