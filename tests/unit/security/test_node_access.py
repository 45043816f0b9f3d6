"""What a node may do on the bus follows from the topics."""

from appliance.bus.broker_access import is_allowed
from appliance.bus.topics import ALL
from appliance.security.node_access import access_of_node

LEVELS = {"node": "attic", "expert": "small", "agent": "home", "client": "house"}


def test_every_topic_of_nodes_names_the_node() -> None:
    """Otherwise nothing could tell one node's messages from another's."""
    for topic in ALL:
        if topic.sender == "node":
            assert topic.template.startswith("rouse/v1/nodes/{node}/"), topic.name


def test_a_node_publishes_what_nodes_send_of_itself() -> None:
    access = access_of_node("attic")
    for topic in ALL:
        for node in ("attic", "cellar", "attic-2"):
            there = topic.at(**{name: {**LEVELS, "node": node}[name] for name in topic.parameters})
            own = topic.sender == "node" and node == "attic"
            assert is_allowed(there, access.publish) is own, there


def test_a_node_reads_nothing_that_is_private_to_others() -> None:
    access = access_of_node("attic")
    for topic in ALL:
        there = topic.at(**{name: {**LEVELS, "node": "cellar"}[name] for name in topic.parameters})
        if topic.parameters:
            assert not is_allowed(there, access.subscribe), there
    for private in ("rouse/v1/pairing/attic/claims", "rouse/v1/agents/home/requests", "rouse/v1/clients/house/replies"):
        assert not is_allowed(private, access.subscribe)
    for needed in ("nodes/attic/power/commands", "nodes/attic/certificate/answers", "hub/trust", "hub/status"):
        assert is_allowed(f"rouse/v1/{needed}", access.subscribe)


def test_filters_that_ask_for_more_than_is_allowed() -> None:
    allowed = ("a/+/c", "b/#", "d")
    for within in ("a/x/c", "a/+/c", "b", "b/x", "b/#", "b/+/y", "d"):
        assert is_allowed(within, allowed), within
    for beyond in ("#", "+", "a/#", "a/+/#", "a/+/+", "+/x/c", "a/x", "a/x/c/d", "d/#", "d/x", "+/#", "c", ""):
        assert not is_allowed(beyond, allowed), beyond
    assert is_allowed("#", ("#",))
    assert not is_allowed("a", ())
