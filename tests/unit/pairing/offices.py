"""The hub's real offices in a folder: its CA, and the nodes' accounts."""

from pathlib import Path

from appliance.pairing.hub_ledger import Offices
from appliance.security.ca.authority import Authority
from appliance.security.ca.names import RESERVED
from appliance.security.ca.store import CaStore
from appliance.security.node_accounts import NodeAccounts
from appliance.security.passwords import fits

EXPERT_KEY = "the-key-of-the-houses-experts"


def authority_of(folder: Path) -> Authority:
    return Authority(CaStore(folder / "ca"), house="house")


def accounts_of(folder: Path) -> NodeAccounts:
    return NodeAccounts(folder / "accounts.json")


def offices(folder: Path) -> Offices:
    return Offices(authority_of(folder), accounts_of(folder), expert_key=EXPERT_KEY, reserved=RESERVED)


def has_account(folder: Path, node: str, password: str) -> bool:
    """Whether the hub knows this password of a node."""
    return fits(password, accounts_of(folder).all.get(node, ""))


def valid(authority: Authority) -> dict[str, str]:
    """Return the certificates of nodes that count, the newest of each, by node."""
    counting = authority.names()
    return {one.name: one.chain for one in authority.issued() if one.name in counting and one.revoked is None}
