"""`rouse first-boot`, and the partition as it is mounted on a machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app
from tests.unit.firstboot.conftest import GOOD, SECRET, Stick

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "image_build/files/config/rouse.toml.example"


def rouse(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["first-boot", *map(str, arguments)])


def test_the_example_is_good(tmp_path: Path) -> None:
    result = rouse("check", EXAMPLE)
    assert result.exit_code == 0, result.output
    assert "attic" not in result.output, "copied as it is, it does nothing"
    # And so is everything that may be switched on, which begins with # and no space.
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    changed = tmp_path / "rouse.toml"
    changed.write_text("\n".join(re.sub("^#(?! )", "", line) for line in lines), encoding="utf-8")
    told = json.loads(rouse("check", "--json", changed).output)
    assert told["good"], told
    assert told["settings"]["name"] == "attic"
    assert told["settings"]["broker"] == "mqtt://192.168.1.10"
    assert told["settings"]["address"] == "192.168.1.20/24"
    assert told["settings"]["experts"] == "small (SmolLM2-135M-Instruct.Q4_1.gguf)"


def test_check_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(GOOD)
    result = rouse("check", file)
    assert result.exit_code == 0
    assert "Café 1 (passphrase set)" in result.output
    assert SECRET not in result.output
    assert SECRET not in rouse("check", "--json", file).output


def test_check_a_bad_file(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[node]\nrols = ['hub']\n[network.wifi]\nssid = 'x'\npsk = 'shorty'\n")
    result = rouse("check", file)
    assert result.exit_code == 1
    assert "did you mean node.roles?" in result.output
    told = json.loads(rouse("check", "--json", file).output)
    assert not told["good"]
    assert [(problem["line"], problem["key"]) for problem in told["problems"]] == [
        (2, "node.rols"),
        (5, "network.wifi.psk"),
    ]
    assert "shorty" not in json.dumps(told)


def test_apply(stick: Stick) -> None:
    stick.write(GOOD)
    arguments = ("apply", "--from", stick.folder, "--root", stick.machine.root, "--admin", "me")
    result = rouse(*arguments)
    assert result.exit_code == 0
    assert "etc/ssh/authorized_keys.d/me" in result.output
    assert rouse(*arguments).output == "Nothing to change.\n"
    stick.write("[node")
    result = rouse(*arguments)
    assert result.exit_code == 0
    assert "the last good file stays" in result.output
    result = rouse("forget-secrets", "--from", stick.folder, "--root", stick.machine.root)
    assert result.exit_code == 1
    stick.write(GOOD)
    result = rouse("forget-secrets", "--from", stick.folder, "--root", stick.machine.root)
    assert "broker.password, network.wifi.psk" in result.output


def test_a_disk_that_takes_nothing(stick: Stick) -> None:
    stick.write(GOOD)
    (stick.machine.root / "var").write_text("no folder")
    result = rouse("apply", "--from", stick.folder, "--root", stick.machine.root)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


READ_ONLY = """
set -e
mount -t tmpfs none "$1"
cp "$2" "$1/rouse.toml"
mount -o remount,ro "$1"
"$3" -m appliance first-boot apply --from "$1" --root "$4"
cat "$1/rouse-errors.txt"
! touch "$1/x" 2>/dev/null
mount -o remount,rw "$1" && cp "$5" "$1/rouse.toml" && mount -o remount,ro "$1"
"$3" -m appliance first-boot apply --from "$1" --root "$4"
test ! -e "$1/rouse-errors.txt"
! touch "$1/x" 2>/dev/null
"$3" -m appliance first-boot forget-secrets --from "$1" --root "$4"
grep -c kept-on-this-machine "$1/rouse.toml"
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and util-linux")
def test_a_partition_that_is_mounted_read_only(stick: Stick, tmp_path: Path) -> None:
    """The report gets there, and the partition is read-only again afterwards."""
    bad, good = tmp_path / "bad.toml", tmp_path / "good.toml"
    bad.write_text("[node")
    good.write_text(GOOD)
    command: list[str | Path] = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        READ_ONLY,
        "sh",
        stick.folder,
        bad,
        sys.executable,
        stick.machine.root,
        good,
    ]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rouse can't use rouse.toml: one thing to put right." in done.stdout
    assert done.stdout.endswith("\n2\n")
