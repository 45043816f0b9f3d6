import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.updates.versions import compare, is_newer, is_version, newest_first

ORDERED = [
    "0~rc1",
    "0",
    "0.1",
    "0.1.0",
    "0.1.1",
    "0.9",
    "0.10",
    "1",
    "1.0~rc1",
    "1.0~rc2",
    "1.0",
    "1.0.1",
    "1.0a",
    "1.0b",
    "2026.11",
]


def test_an_order() -> None:
    assert sorted(sorted(ORDERED), key=newest_first) == ORDERED[::-1]
    assert is_newer("0.10.0", "0.9.9")
    assert not is_newer("1.0", "1.0")


@pytest.mark.parametrize("text", ["", "a", "1/2", "..", "1 2", "1\n", "1+2", "1-2", "1" * 25, "../1", "-1"])
def test_what_is_no_version(text: str) -> None:
    assert not is_version(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@settings(deadline=None, max_examples=150)
@given(st.text("0123ab.~", min_size=1, max_size=8), st.text("0123ab.~", min_size=1, max_size=8))
@example("1.0~rc1", "1.0")
@example("01", "1")
@example("1.a", "1.1")
@example("1", "1.")
def test_the_order_is_systemd_s(one: str, other: str) -> None:
    command = ["systemd-analyze", "compare-versions", one, other]
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    sign = {"<": -1, "==": 0, ">": 1}[said.stdout.split()[1]]
    order = compare(one, other)
    assert (order > 0) - (order < 0) == sign
