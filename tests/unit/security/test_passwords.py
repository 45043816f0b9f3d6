"""Passwords as mosquitto keeps them, held against its own program."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.security.passwords import fits, hashed, new_password

needs_program = pytest.mark.skipif(
    shutil.which("mosquitto_passwd") is None, reason="mosquitto is not installed: apt-get install mosquitto"
)


def test_a_password_fits_its_own_hash_alone() -> None:
    password = new_password()
    kept = hashed(password)
    assert kept.startswith("$7$10000$")
    assert password not in kept
    assert fits(password, kept)
    assert not fits(password + "x", kept)
    assert not fits("", kept)
    assert hashed(password) != kept


@needs_program
def test_mosquittos_own_hash_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", file, "attic", "secret word"], check=True, timeout=30)
    user, _, kept = file.read_text().strip().partition(":")
    assert user == "attic"
    assert kept.startswith("$7$")
    assert fits("secret word", kept)
    assert not fits("secret", kept)


@pytest.mark.parametrize(
    "kept",
    ["", "$", "$7$", "$6$1$YQ==$YQ==", "$7$0$YQ==$YQ==", "$7$x$YQ==$YQ==", "$7$1$YQ==$", "$7$99999999999$YQ==$YQ=="],
)
def test_what_is_no_hash_fits_nothing(kept: str) -> None:
    assert not fits("", kept)
    assert not fits("a", kept)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_any_text(password: str) -> None:
    try:
        password.encode()
    except UnicodeEncodeError:
        return
    assert not fits(password + "x", "$7$1$YWFhYWFhYWFhYWFh$" + "A" * 88)
