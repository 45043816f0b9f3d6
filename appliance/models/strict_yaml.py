"""YAML that may come from anywhere: plain values only, no aliases, no duplicate keys, bounded in size."""

from collections.abc import Hashable
from typing import Any

import yaml

from appliance.models.errors import CatalogueError

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases, with which a few lines grow to gigabytes, and without duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"a key is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def parse(data: bytes) -> Any:
    """Parse one document.

    Raises:
        CatalogueError: it is no YAML, too large, too deep, or uses what is not allowed.
    """
    if len(data) > MAX_BYTES:
        raise CatalogueError(f"is larger than {MAX_BYTES} bytes")
    try:
        return yaml.load(data.decode(), _Loader)  # noqa: S506 - a subclass of the safe loader
    except RecursionError:
        raise CatalogueError("is nested too deeply") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CatalogueError(" ".join(str(error).split())) from None
