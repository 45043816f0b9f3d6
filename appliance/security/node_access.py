"""What a node may do on the bus: no more than the topics say that it sends and needs."""

from dataclasses import dataclass

from appliance.bus.topics import ALL, NODE_STATUS, Topic

_NODE = "{node}"
_OWN = NODE_STATUS.template.removesuffix("status")
"""Below this, everything is about one node."""


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """Topic filters."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def access_of_node(node: str) -> NodeAccess:
    """Return what a node may publish and subscribe to.

    It publishes what nodes send, of itself alone. It reads what others send to it, its own retained messages (to take
    back what an earlier run said), and what the hub tells everybody.
    """
    own = [topic for topic in ALL if topic.template.startswith(_OWN)]
    told_to_all = [topic for topic in ALL if topic.sender == "hub" and not topic.parameters]
    return NodeAccess(
        publish=tuple(_filter(topic, node) for topic in own if topic.sender == "node"),
        subscribe=(
            *(_filter(topic, node) for topic in own if topic.sender != "node" or topic.retain),
            *(topic.template for topic in told_to_all),
        ),
    )


def _filter(topic: Topic[object], node: str) -> str:
    narrowed = topic.template.replace(_NODE, node)
    for name in topic.parameters:
        narrowed = narrowed.replace(f"{{{name}}}", "+")
    return narrowed
