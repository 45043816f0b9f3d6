"""@local: the deploy runs on the machine that it changes, here in a root file system of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from image_build.source import checkout

_SCRIPT = """
set -eu
root=$1
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
  shift
done
shift
cd "$root"
exec chroot "$root" "$@"
"""


def places() -> set[Path]:
    """Return the folders that this Python runs from."""
    base = Path(sys.base_prefix)
    if base == Path("/usr"):
        pytest.skip("the system's own Python can't be taken into another root file system")
    return {checkout(), Path(sys.prefix), Path(sys.prefix).resolve(), base.parent if base.name == "usr" else base}


def deploy(root: Path, *arguments: str, user: str = "root") -> tuple[int, dict[str, object], str]:
    folders = sorted(str(place) for place in places())
    outer = ["unshare", "--mount", "--uts", "--propagation=private", "sh", "-c", _SCRIPT, "local", str(root), *folders]
    python = [sys.executable, "-m", "appliance", "--config-dir", "/etc/rouse", "deploy", "@local", "--yes", "--json"]
    python += ["--skip-preflight"]  # this root shares the machine with others
    become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user != "root" else []
    inner = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PYTHONPATH={checkout()}", *become, *python]
    done = subprocess.run([*outer, "--", *inner, *arguments], check=False, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_second_run_changes_nothing(root: Path) -> None:
    settings = root / "etc/rouse/rouse.toml"
    settings.parent.mkdir()
    settings.write_text('[system]\nhostname = "attic"\ntime_zone = "Asia/Tokyo"\n')
    parts = ("--part", "base", "--part", "users")
    code, first, errors = deploy(root, *parts)
    assert code == 0, errors
    assert (root / "etc/hostname").read_text() == "attic\n"
    assert (root / "etc/localtime").readlink() == Path("../usr/share/zoneinfo/Asia/Tokyo")
    code, second, _ = deploy(root, *parts)
    assert code == 0
    assert "'changed': 0" in str(second)
    assert [outcome for outcome in ("'outcome': 'changed'", "'outcome': 'failed'") if outcome in str(second)] == []
    assert "'outcome': 'changed'" in str(first)
