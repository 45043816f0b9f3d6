import importlib.util
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app
from image_build.signing import CHECKSUMS, write_checksums

HASH = "0123456789abcdef" * 4
HAS_TOOLS = importlib.util.find_spec("cyclonedx") is not None
NEEDS_TOOLS = pytest.mark.skipif(not HAS_TOOLS, reason="images are built from a checkout with its development tools")


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "rouse_1.0_amd64.raw.zst").write_bytes(b"disk")
    components = [{"purl": "pkg:deb/debian/dash@1"}, {"purl": "pkg:pypi/rich@14"}, {"name": "model"}]
    (folder / "rouse_1.0_amd64.cdx.json").write_text(json.dumps({"components": components}))
    manifest = {
        "version": "1.0",
        "architecture": "amd64",
        "root_hash": HASH,
        "source_date_epoch": 1,
        "var_size": 1 << 28,
    }
    (folder / "rouse_1.0_amd64.json").write_text(json.dumps(manifest))
    write_checksums(folder)
    return folder


def _run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["image", *words], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_inspect_counts_packages_and_shows_partitions(build: Path) -> None:
    code, output = _run("inspect", str(build))
    assert code == 0
    assert "1 Debian packages, 1 Python packages, not signed" in output
    assert "rouse_1.0" in output


def test_inspect_as_json_names_every_file(build: Path) -> None:
    code, output = _run("inspect", str(build), "--json")
    assert code == 0
    assert {file["name"] for file in json.loads(output)["files"]} == {path.name for path in build.iterdir()}


@pytest.mark.parametrize("text", ["", "{}", "[", '{"version": 1}'])
def test_a_folder_without_a_build_is_one_clear_error(build: Path, text: str) -> None:
    (build / "rouse_1.0_amd64.json").write_text(text)
    code, output = _run("inspect", str(build))
    assert code == 1
    assert output.startswith("rouse: ")


def test_an_unsigned_build_does_not_verify(build: Path) -> None:
    code, output = _run("verify", str(build), "--keys", str(build / CHECKSUMS))
    assert code == 1
    assert "is not signed" in output


def test_a_changed_file_is_not_signed(build: Path) -> None:
    (build / "rouse_1.0_amd64.raw.zst").write_bytes(b"other")
    code, output = _run("sign", str(build), "--key", "nobody@rouse.invalid")
    assert code == 1
    assert "is not what was published" in output


def test_without_the_tools_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in {"cyclonedx", "image_build"}]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cyclonedx", None)
    code, output = _run("repack", "--image-version", "0.1.1", "--work", str(tmp_path))
    assert code == 1
    assert "images are built from a checkout" in output
    assert "(the module cyclonedx" in output


@NEEDS_TOOLS
def test_an_architecture_without_an_image_is_one_clear_error() -> None:
    code, output = _run("build", "--architecture", "m68k")
    assert code == 1
    assert "'m68k'" in output


@NEEDS_TOOLS
def test_a_version_that_breaks_names_is_one_clear_error(tmp_path: Path) -> None:
    code, output = _run("build", "--image-version", "new/one", "--work", str(tmp_path))
    assert code == 1
    assert "is no version" in output


def test_what_is_no_repository_is_one_clear_error(build: Path) -> None:
    code, output = _run("push", str(build), "http://host/rouse")
    assert code == 1
    assert "is no registry and repository" in output


@NEEDS_TOOLS
def test_there_is_nothing_to_pack_again_before_a_build(tmp_path: Path) -> None:
    code, output = _run("repack", "--image-version", "0.1.1", "--work", str(tmp_path))
    assert code == 1
    assert "run `rouse image build` first" in output
