import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app

MEASURED = Path("tests/benchmarks/router.jsonl")
TRAIN = ("router", "train", str(MEASURED), "--head", "neighbours")

type Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("ROUSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: str, **environ: str) -> Any:
        variables = {"ROUSE_PATHS__STATE": str(tmp_path / "state"), **environ}
        return CliRunner().invoke(app, ["--config-dir", str(tmp_path), *arguments], env=variables)

    return invoke


@contextmanager
def specialist(name: str) -> Iterator[str]:
    """Run a scripted expert in a process of its own; yield how the command line names it."""
    command = [sys.executable, "-m", "tests.benchmarks.specialists", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"{name}={process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


def test_train_activate_explain_evaluate_and_roll_back(run: Run, tmp_path: Path) -> None:
    trained = run(*TRAIN, "--name", "first", "--activate")
    assert trained.exit_code == 0, trained.output
    assert "neighbours on ngrams" in trained.stdout
    assert "From random to oracle" in trained.stdout
    second = run(*TRAIN, "--name", "second", "--cost-weight", "0.5", "--json")
    assert json.loads(second.stdout)["way_to_oracle"] > 0.5
    assert run("router", "activate", "second").stdout == "second is at work.\n"

    explained = json.loads(run("router", "explain", "What is 17 + 4?", "--json").stdout)
    assert explained["router"] == "second"
    assert explained["experts"][0] == "sums"
    assert set(explained["scores"]) == {"extractor", "gemma3-270m", "house", "smollm2-135m", "snippets", "sums"}
    some = run("router", "explain", "Turn on the light in the kitchen", "--expert", "house", "--expert", "sums")
    assert some.stdout.startswith("house, sums (second, ")
    assert re.search(r"expert +score +expected quality +relative cost", some.stdout)
    assert re.search(r"\n *house( +-?[01]\.\d{3}){3}", some.stdout)
    assert "--data FILE" in some.stdout
    near = run("router", "explain", "What is 17 + 4?", "--data", str(MEASURED))
    assert re.search(r"What is \d+ \+ \d+\? +[01]\.\d+ +1\.00 +.*sums", near.stdout)
    document = json.loads(run("router", "explain", "What is 17 + 4?", "--data", str(MEASURED), "--json").stdout)
    likeness = [one["likeness"] for one in document["nearest"]]
    assert (len(likeness), likeness) == (5, sorted(likeness, reverse=True))
    assert set(document["expected"]) == set(document["nearest"][0]["qualities"]) == set(document["scores"])
    new = run("router", "explain", "hello", "--expert", "house", "--expert", "new")
    assert "the trained router second does not know new" in new.stdout

    chart = tmp_path / "curve.svg"
    report = json.loads(run("router", "evaluate", str(MEASURED), "--chart", str(chart), "--json").stdout)
    qualities = {policy["name"]: policy["quality"] for policy in report["policies"]}
    assert qualities["oracle"] >= qualities["router"] > qualities["random"]
    assert chart.read_text().startswith("<svg")
    assert "rules" in run("router", "evaluate", str(MEASURED), "--version", "first").stdout

    rows = {row["version"]: row for row in json.loads(run("router", "list", "--json").stdout)}
    assert (rows["first"]["previous"], rows["second"]["current"]) == (True, True)
    assert run("router", "rollback").stdout == "first is at work.\n"
    assert re.search(r"first +at work", run("router", "list").stdout)
    assert re.search(r"second +before", run("router", "list").stdout)


def test_without_a_trained_router(run: Run) -> None:
    assert "rouse router generate" in run("router", "list").stdout
    assert "there is no trained router" in run("router", "explain", "hello").stdout
    for arguments, message in (
        (("rollback",), "no version to go back to"),
        (("activate", "x"), "there is no version 'x'"),
        (("activate", "../x"), "can't be a version"),
        (("evaluate",), "rouse router train"),
        (("train",), "can't be read"),
        (("explain", "hi", "--version", "x"), "can't be read"),
        (("generate",), "--expert"),
    ):
        result = run("router", *arguments)
        assert result.exit_code == 1, arguments
        assert message in result.stderr
        assert "Traceback" not in result.output


def test_wrong_data_is_named_with_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(MEASURED.read_text().partition("\n")[0] + '\n{"query": 1}\n')
    result = run("router", "train", str(tmp_path / "bad.jsonl"))
    assert result.exit_code == 1
    assert "bad.jsonl:2" in result.stderr


def test_a_broken_version_is_shown_as_broken(run: Run, tmp_path: Path) -> None:
    assert run(*TRAIN, "--name", "first", "--activate").exit_code == 0
    (tmp_path / "state/router/versions/first/manifest.json").write_text("{")
    assert "broken" in run("router", "list").stdout
    assert "broken" in run("router", "explain", "hello").stdout
    assert run("router", "evaluate", str(MEASURED)).exit_code == 1


def test_generate_asks_running_experts_and_goes_on(run: Run, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    shutil.copy("appliance/routing/seeds/maths.yaml", seeds)
    file = tmp_path / "data.jsonl"
    arguments = ("router", "generate", "--seeds", str(seeds), "--output", str(file), "--per-template", "1")
    with ExitStack() as stack:
        experts = [stack.enter_context(specialist(name)) for name in ("sums", "house")]
        asked = [part for expert in experts for part in ("--expert", expert)]
        first = run(*arguments, *asked, "--json")
        assert first.exit_code == 0, first.output
        count = len(file.read_text().splitlines())
        assert json.loads(first.stdout)["asked"] == count > 30
        (tmp_path / "runs.jsonl").write_text(MEASURED.read_text().partition("\n")[0])
        again = run(*arguments, *asked, "--runs", str(tmp_path / "runs.jsonl")).stdout
        assert f"0 new answers beside {count + 1}" in again
        assert "new or rated otherwise: 1." in again
        missing = run(*arguments, *asked, "--expert", "gone=http://127.0.0.1:9/v1")
    assert missing.exit_code == 1
    assert "gone at http://127.0.0.1:9/v1 can't be asked" in missing.stderr
    assert run(*arguments, "--expert", "a=ftp://x", "--expert", "b=ftp://x").exit_code == 2


def test_what_generate_can_not_do_is_one_sentence(run: Run, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "x.yaml").write_text(
        "domain: maths\ntasks:\n  - {id: bad, metric: regex, answer: (, queries: {en: [a, b, c, d]}}\n"
    )
    gone = ("--expert", "a=http://127.0.0.1:9/v1", "--expert", "b=http://127.0.0.1:9/v1")
    arguments = ("router", "generate", "--seeds", str(seeds), "--output", str(tmp_path / "data.jsonl"))
    result = run(*arguments, *gone)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert re.search(r"x\.yaml:3: maths/bad/en0: '\(' is no regular expression", result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1
    (seeds / "x.yaml").write_text(
        "domain: maths\ntasks:\n  - {id: few, metric: exact, answer: x, queries: {en: [a, b]}}\n"
    )
    few = run(*arguments, *gone)
    assert few.exit_code == 0, "fewer failures than an expert is given up for"
    assert re.search(r"a: answers missing: 2 \(2 x a at http://127\.0\.0\.1:9/v1 can't be asked", few.stdout)
    assert json.loads(run(*arguments, *gone, "--json").stdout)["skipped"].keys() == {"a", "b"}
    assert run(*arguments, *gone[:2], *gone[:2]).exit_code == 2
    assert run(*arguments, *gone[:2], "--expert", "=http://127.0.0.1:9/v1").exit_code == 2


def test_a_key_comes_from_a_file_or_the_environment_and_is_never_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    arguments = ("router", "generate", "--expert", "a=http://127.0.0.1:9/v1", "--expert", "b=http://127.0.0.1:9/v1")
    result = run(*arguments, "--api-key-file", str(tmp_path / "empty"))
    assert (result.exit_code, "is empty" in result.stderr) == (1, True)
    result = run(*arguments, "--output", str(tmp_path / "data.jsonl"), ROUSE_API_KEY="very-secret")
    assert result.exit_code == 1
    assert "very-secret" not in result.output
