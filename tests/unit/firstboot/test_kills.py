"""Killed at every step of applying a file: the next start does the rest."""

import shutil
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from appliance.firstboot.apply import Machine, apply
from appliance.firstboot.forget import forget_secrets
from tests.killing import Child, die_at, preload
from tests.unit.firstboot.conftest import GOOD, Stick, new_stick

MOST_STEPS = 120


def start(say: Connection, folder: Path, root: Path, step: int) -> None:
    die_at(step)
    apply(folder, Machine(root))
    say.send("done")


def forget(say: Connection, folder: Path, root: Path, step: int) -> None:
    die_at(step)
    forget_secrets(folder, Machine(root))
    say.send("done")


@pytest.mark.timeout(600)
def test_killed_at_every_step(tmp_path: Path) -> None:
    preload("tests.unit.firstboot.test_kills")
    whole = new_stick(tmp_path / "whole")
    whole.write(GOOD)
    whole.start()
    kept = 0
    for step in range(1, MOST_STEPS):
        stick = new_stick(tmp_path / str(step))
        stick.write(GOOD)
        child = Child(start, stick.folder, stick.machine.root, step)
        killed = child.join()
        child.end()
        # The file is bad at the next start: what was accepted before counts, or nothing.
        stick.write("[node")
        stick.start()
        everything = without_drafts(stick)
        if stick.machine.accepted.exists():
            kept += 1
            assert everything == without_drafts(whole), step
        else:
            assert not stick.at("etc/rouse").exists(), step
        shutil.rmtree(tmp_path / str(step))
        if not killed:
            break
    else:
        pytest.fail("there are more steps than expected")
    assert step > 20
    assert kept > 15


def without_drafts(stick: Stick) -> dict[str, bytes | str]:
    """What a kill leaves behind beside: hidden drafts that nobody reads."""
    return {
        path: content for path, content in stick.everything().items() if not path.rpartition("/")[2].startswith(".")
    }


@pytest.mark.timeout(600)
def test_killed_while_it_forgets_secrets(tmp_path: Path) -> None:
    preload("tests.unit.firstboot.test_kills")
    for step in range(1, 40):
        stick = new_stick(tmp_path / str(step))
        stick.write(GOOD)
        stick.start()
        child = Child(forget, stick.folder, stick.machine.root, step)
        killed = child.join()
        child.end()
        assert stick.start().status.state == "good", step
        assert stick.at("etc/rouse/rouse.toml").read_text() == GOOD, step
        if not killed:
            return
    pytest.fail("there are more steps than expected")
