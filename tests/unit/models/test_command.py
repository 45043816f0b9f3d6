"""`rouse model`, as a process where it may be killed or run out of disk, else in this one."""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app
from appliance.models.catalogue import load
from tests.unit.models.source import Source, gguf, serve

TOP = Path(__file__).parents[3]

type Run = Callable[..., Any]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def environment(tmp_path: Path, models: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(TOP),
        "HOME": str(tmp_path),
        "ROUSE_CONFIG_DIR": str(tmp_path),
        "ROUSE_PATHS__MODELS": str(models),
        "ROUSE_PATHS__STATE": str(tmp_path),
    }


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("ROUSE_")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(app, ["model", *arguments], env=environment, **options)

    return invoke


async def start(environment: dict[str, str], *arguments: str, most: int | None = None) -> asyncio.subprocess.Process:
    """Start `rouse model`, with no file larger than `most` bytes."""
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))" if most else "pass"
    program = f"import resource, sys; {limit}; from appliance.cli import main; main()"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "model", *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )


async def test_killed_and_started_again(source: Source, good: bytes, models: Path, environment: dict[str, str]) -> None:
    digest = hashlib.sha256(good).hexdigest()
    arguments = ("add", source.url + "/m.gguf", "--sha256", digest)
    source.plan = [serve(good, cut=120_000, hold=asyncio.Event()), serve(good)]
    process = await start(environment, *arguments)
    part = models / "m.gguf.part"
    try:
        async with asyncio.timeout(50):
            while not part.exists() or part.stat().st_size < 120_000:
                assert process.returncode is None
                await asyncio.sleep(0.02)
    finally:
        process.kill()
        await process.communicate()
    assert [path.name for path in models.glob("*.gguf")] == []
    again = await start(environment, *arguments)
    _, said = await again.communicate()
    assert again.returncode == 0, said
    assert source.requests[1].offset == 120_000
    assert (models / "m.gguf").read_bytes() == good
    assert not part.exists()


async def test_the_disk_fills_up(source: Source, good: bytes, models: Path, environment: dict[str, str]) -> None:
    arguments = ("add", source.url + "/m.gguf", "--sha256", hashlib.sha256(good).hexdigest())
    source.plan = [serve(good)]
    process = await start(environment, *arguments, most=150_000)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"the disk is full" in said
    assert b"Traceback" not in said
    assert [path.name for path in models.glob("*.gguf")] == []
    assert (models / "m.gguf.part").stat().st_size == 150_000
    again = await start(environment, *arguments)
    await again.communicate()
    assert again.returncode == 0
    assert source.requests[1].offset == 150_000
    assert (models / "m.gguf").read_bytes() == good


def put(models: Path, name: str, data: bytes, *, sha256: str | None = None) -> None:
    (models / name).write_bytes(data)
    record = {"size": len(data), "sha256": sha256 or hashlib.sha256(data).hexdigest(), "voucher": "user", "source": "x"}
    document = {"version": 1, "files": {name: {**record, "added": "2026-01-01T00:00:00Z"}}}
    (models / ".rouse-models.json").write_text(json.dumps(document))


def test_list(run: Run) -> None:
    result = run("list", "--for", "maths", "--class", "legacy")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:] if line.strip()] == ["lfm2-350m-math"]


def test_list_json(run: Run, models: Path) -> None:
    put(models, "own.gguf", gguf(100))
    document = json.loads(run("list", "--json").stdout)
    assert [model["id"] for model in document["models"]] == [model.id for model in load().models]
    assert document["others"]["own.gguf"]["record"]["voucher"] == "user"


def test_an_unknown_purpose_is_wrong_usage(run: Run) -> None:
    assert run("list", "--for", "cooking").exit_code == 2


def test_show(run: Run) -> None:
    result = run("show", "lfm2-1.2b-tool")
    assert result.exit_code == 0
    assert "unconfirmed" in result.stdout
    assert json.loads(run("show", "lfm2-1.2b-tool", "--json").stdout)["kv_bytes_per_token"] == 12_288


def test_an_unknown_model(run: Run) -> None:
    result = run("show", "nonsense")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "rouse: nonsense: not in the catalogue; `rouse model list` shows what there is\n"


def test_another_catalogue(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("licences: {}\nmodels: []\n")
    assert json.loads(run("--catalogue", str(path), "list", "--json").stdout)["models"] == []
    path.write_text("models: 3")
    result = run("--catalogue", str(path), "list")
    assert result.exit_code == 1
    assert str(path) in result.stderr


def test_verify(run: Run, models: Path) -> None:
    put(models, "own.gguf", gguf(100_000))
    assert run("verify").exit_code == 0
    data = bytearray(gguf(100_000))
    data[70_000] ^= 1
    (models / "own.gguf").write_bytes(data)
    result = run("verify", "own.gguf", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["verdict"] == "bad"
    (models / "own.gguf").unlink()
    assert "MISSING" in run("verify").stdout


def test_verify_without_a_record(run: Run, models: Path) -> None:
    (models / "own.gguf").write_bytes(gguf(100))
    (models / "LFM2-700M-Q4_K_M.gguf").write_bytes(gguf(100))
    result = run("verify", "--json")
    assert result.exit_code == 1
    assert {one["file"]: one["verdict"] for one in json.loads(result.stdout)} == {
        "own.gguf": "unknown",
        "LFM2-700M-Q4_K_M.gguf": "bad",
    }


def test_remove_asks(run: Run, models: Path) -> None:
    put(models, "own.gguf", gguf(100))
    (models / "own.gguf.part").write_bytes(b"x")
    assert run("remove", "own.gguf", input="n\n").exit_code == 1
    assert (models / "own.gguf").exists()
    assert run("remove", "own.gguf", input="y\n").exit_code == 0
    assert [path.name for path in models.iterdir() if not path.name.startswith(".")] == []
    assert json.loads((models / ".rouse-models.json").read_text())["files"] == {}


@pytest.mark.parametrize("absolute", [False, True])
def test_remove_of_what_an_expert_needs(run: Run, models: Path, tmp_path: Path, *, absolute: bool) -> None:
    put(models, "own.gguf", gguf(100))
    (tmp_path / "rouse.toml").write_text(f"experts.small.model = '{models if absolute else '.'}/own.gguf'")
    result = run("remove", "own.gguf", "--yes")
    assert result.exit_code == 1
    assert "experts.small needs it" in result.stderr
    assert (models / "own.gguf").exists()
    assert run("remove", "own.gguf", "--yes", "--force").exit_code == 0


@pytest.mark.parametrize("what", ["../rouse.toml", "rouse.toml", ".rouse-models.json", "/etc/passwd", "nonsense"])
def test_remove_of_something_else(run: Run, tmp_path: Path, what: str) -> None:
    (tmp_path / "rouse.toml").write_text("")
    assert run("remove", what, "--yes").exit_code == 1
    assert (tmp_path / "rouse.toml").exists()


def test_path(run: Run, models: Path) -> None:
    assert run("path").stdout == f"{models}\n"
    assert run("path", "lfm2-700m").exit_code == 1
    put(models, "LFM2-700M-Q4_K_M.gguf", gguf(100))
    assert run("path", "lfm2-700m").stdout == f"{models}/LFM2-700M-Q4_K_M.gguf\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "http://192.0.2.1/m.gguf", "--unverified"),
        ("add", "file:///etc/passwd"),
        ("add", "https://"),
        ("add", "https://example.org/..", "--sha256", "0" * 64),
        ("add", "https://example.org/m.gguf", "--name", "../m.gguf"),
        ("add", "https://example.org/m.gguf", "--sha256", "abc"),
        ("add", "lfm2-700m", "--sha256", "0" * 64),
        ("add", "nonsense"),
    ],
)
def test_what_can_not_be_added(run: Run, models: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code in {1, 2}
    assert [path.name for path in models.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize("text", ["a\tb", "\n", "ä", "\xff"])
def test_a_token_that_is_none(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "token").write_text(text, encoding="latin-1")
    result = run("add", "lfm2-700m", "--token-file", str(tmp_path / "token"))
    assert result.exit_code == 1
    assert "token" in result.stderr
    monkeypatch.setenv("HF_TOKEN", text)
    assert run("add", "lfm2-700m").stderr == "rouse: HF_TOKEN: is no token\n"


def test_advise(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("advise", "--json").stdout)
    assert len(document["models"]) == len(load().models)
    assert {one["fit"] for one in document["models"]} <= {"fits", "tight", "unknown", "too-large"}
    kept = (tmp_path / "machine-speed.json").read_bytes()
    assert json.loads(run("advise", "--json").stdout)["speed"] == document["speed"]
    (tmp_path / "machine-speed.json").write_bytes(b"\xff")
    table = run("advise", "--for", "chat")
    assert table.exit_code == 0
    assert "smollm2-135m-instruct" in table.stdout
    assert (tmp_path / "machine-speed.json").read_bytes() != kept
