"""Whatever the file holds: settings, or clear errors; never a traceback, and never a secret."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.firstboot.kept_secrets import split, with_secrets
from tests.unit.firstboot.conftest import GOOD, Stick, new_stick

SECRET = "zq7Xk9-secret"
PIECES = st.sampled_from([*GOOD.splitlines(keepends=True), "[", "]", "=", '"', "'", "\r\n", "\n", "\0", "ä", "# ", "."])
LINES = st.lists(PIECES, max_size=20).map("".join)
LEAVES = [
    "node.name", "node.roles", "node.title", "system.ssh_keys", "system.time_zone", "system.hostname", "system.locale",
    "network.wifi.ssid", "network.wifi.psk", "network.wifi.country", "network.wifi.hidden", "network.static.address",
    "network.static.gateway", "network.static.dns", "broker.url", "broker.password", "pairing.port",
]  # fmt: skip
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.integers(-5, 70_000),
    st.booleans(),
    st.floats(),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=10), max_size=3),
)

slowly = settings(deadline=None, max_examples=60)


def started(content: bytes) -> Stick:
    """Start a machine with the file, twice, and check what is told."""
    with tempfile.TemporaryDirectory() as folder:
        stick = new_stick(Path(folder))
        stick.write(content)
        outcome = stick.start()
        problems = outcome.status.problems
        assert (outcome.status.state == "bad") == bool(problems) == (stick.errors is not None)
        for problem in problems:
            assert problem.text
            assert "\n" not in problem.text
        told = (stick.errors or "") + json.dumps(outcome.status.as_json())
        assert SECRET not in told
        if outcome.status.state == "bad":
            assert not stick.at("etc/rouse").exists()
        assert stick.start().changed == ()
        return stick


@slowly
@given(st.binary(max_size=300) | LINES.map(lambda text: text.encode("utf-8", "replace")))
@example(GOOD.encode())
@example(b"network.wifi.psk = 1")
@example(b"")
def test_any_bytes(content: bytes) -> None:
    started(content)


@slowly
@given(st.dictionaries(st.sampled_from(LEAVES), VALUES, max_size=4))
@example({"network.wifi.ssid": "\u2028", "node.title": "\x7f"})
def test_any_values(values: dict[str, Any]) -> None:
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    started("\n".join(lines).encode())


@slowly
@given(
    st.sampled_from(["network.wifi.psk", "broker.password"]),
    st.integers(0, 200),
    st.sampled_from(["", "\0", '"', "[", "\n"]),
)
def test_a_broken_file_never_tells_its_secret(key: str, place: int, mark: str) -> None:
    text = f'[node]\nname = "attic"\n[{key.rpartition(".")[0]}]\n{key.rpartition(".")[2]} = "{SECRET}"\nssid = "x"\n'
    started((text[:place] + mark + text[place:]).encode())


@slowly
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30))
@example('a"b\\c')
@example("\x7f\U0001f511")
def test_secrets_come_back_as_they_were(secret: str) -> None:
    quoted = json.dumps(secret, ensure_ascii=False).replace("\x7f", "\\u007f")
    content = f'[broker] # ä\nusername = "ü"\npassword = {quoted} # x\n[node]\nname = "a"\n'.encode()
    rest, held = split(content)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.json"
        kept.write_text(json.dumps(held))
        if secret != "kept-on-this-machine":
            assert held == {"broker.password": secret}
            assert with_secrets(rest, kept) == content
