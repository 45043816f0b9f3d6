import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from appliance.settings import LoadedSettings
from appliance.settings.keys import keys_of, leaves
from appliance.settings.model import Settings
from appliance.settings.reference import reference, updated

type Load = Callable[..., LoadedSettings]
type Write = Callable[[str, str | bytes], Path]

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "configuration.md"


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == updated(text), "run python -m appliance.settings.reference --write docs/configuration.md"


def test_every_key_is_there_and_explained() -> None:
    entries = dict(re.findall(r"^### `(.+)`\n\n\*(.+)\*\n\n\S", reference(), re.MULTILINE))
    assert list(entries) == [".".join(leaf) for leaf in leaves(keys_of(Settings))]
    assert entries["gateway.port"] == "an integer from 0 to 65535; default `8100`"
    assert entries["broker.password"] == "a string; not set by default; a secret, never shown"
    assert entries["experts.<name>.model"] == "a path; required"


def test_the_example_loads(write: Write, loaded: Load) -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 1
    write("rouse.toml", examples[0])
    settings = loaded().settings
    assert settings.node.name == "attic"
    assert settings.experts["small"].slots == 2


def test_check_and_write(tmp_path: Path) -> None:
    def run(mode: str) -> int:
        command = [sys.executable, "-m", "appliance.settings.reference", mode, str(document)]
        return subprocess.run(command, check=False, cwd=ROOT, capture_output=True).returncode

    document = tmp_path / "configuration.md"
    document.write_text(DOCUMENT.read_text(encoding="utf-8") + "stale", encoding="utf-8")
    assert run("--check") == 1
    assert run("--write") == 0
    assert run("--check") == 0
    assert document.read_bytes() == DOCUMENT.read_bytes()
