import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from appliance.benchmark.client import UNFINISHED, Outcome
from appliance.benchmark.errors import BenchmarkError, ReportFileError
from appliance.benchmark.files import read_report, write_report
from appliance.benchmark.guidellm.reading import from_guidellm
from appliance.benchmark.guidellm.writing import to_guidellm
from appliance.benchmark.report import Level, Report
from appliance.benchmark.table import shown
from tests.fuzzing import bodies, drawn

FOLDER = Path(__file__).parent / "guidellm"
GOLDEN: Any = json.loads((FOLDER / "benchmarks.json").read_text())
SCHEMA: Any = json.loads((FOLDER / "schema.json").read_text())


def outcomes(number: int) -> list[Outcome]:
    chance = random.Random(number)
    found = []
    for at in range(12):
        start = 100.0 + at
        times = [start + 0.1 + 0.05 * step + chance.random() / 100 for step in range(10)]
        found.append(Outcome(start, times[-1] + 0.01, [(time, 1) for time in times], 30, 4, 11))
    found.append(Outcome(101.0, 101.5, [(101.2, 1)], error="cut short", detail="it ended"))
    found.append(Outcome(113.0, 113.5, [(113.2, 1)], error=UNFINISHED))
    return found


def report() -> Report:
    levels = [
        Level.of(outcomes(clients), concurrency=clients, prompt_tokens=32, began=1.8e9 + clients, window=(100.0, 115.0))
        for clients in (1, 4)
    ]
    empty = Level.of([], concurrency=8, prompt_tokens=32, began=1.8e9, window=(0.0, 1.0))
    return Report(target="http://127.0.0.1:1", model="small", answer_tokens=11, tool="rouse 0", levels=(*levels, empty))


def text_of(found: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(shown(found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = write_report(report(), tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["report.json", "report.guidellm.json", "report.svg"]
    assert read_report(files[0]) == report()


def test_guidellms_classes_take_what_is_written() -> None:
    jsonschema.validate(GOLDEN, SCHEMA)
    written = to_guidellm(report())
    jsonschema.validate(written, SCHEMA)
    del written["benchmarks"][0]["metrics"]["request_latency"]["successful"]["percentiles"]["p95"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, SCHEMA)


def test_what_is_written_for_guidellm_says_the_same_when_it_is_read() -> None:
    ours = report()
    theirs = from_guidellm(json.loads(json.dumps(to_guidellm(ours))))
    assert (theirs.target, theirs.model, theirs.tool) == (ours.target, ours.model, ours.tool)
    for one, other in zip(ours.levels, theirs.levels, strict=True):
        assert (one.concurrency, one.completed, one.unfinished, one.failed) == (
            other.concurrency, other.completed, other.unfinished, other.failed,
        )  # fmt: skip
        assert one.tokens_per_second == pytest.approx(other.tokens_per_second)
        assert one.requests_per_second == pytest.approx(other.requests_per_second)
        for name in ("first_token_ms", "inter_token_ms", "latency_ms"):
            mine, others = getattr(one, name), getattr(other, name)
            assert (mine is None) == (others is None)
            if mine is not None:
                assert mine.mean == pytest.approx(others.mean)
                assert mine.maximum == pytest.approx(others.maximum)


def test_a_real_report_of_guidellm() -> None:
    found = read_report(FOLDER / "benchmarks.json")
    assert (found.tool, found.model) == ("GuideLLM 0.8.1", "bench")
    one, four = found.levels
    assert (one.concurrency, one.completed, one.failed, one.prompt_tokens) == (1, 8, 0, 46)
    assert one.first_token_ms is not None
    assert one.latency_ms is not None
    # As in the table that GuideLLM printed of that run: 194.7 ms, 2.0 s, 17.3 tokens/s.
    assert one.first_token_ms.p50 == pytest.approx(194.7, abs=0.1)
    assert one.latency_ms.p50 == pytest.approx(2036.8, abs=0.1)
    assert one.tokens_per_second == pytest.approx(17.32, abs=0.01)
    assert four.concurrency == 4
    assert "194.7" in text_of(found) or "195" in text_of(found)


def test_the_table_hides_nothing() -> None:
    text = text_of(report())
    assert "1 failed, cut short: it ended" in text
    assert "1 unfinished" in text
    assert "The server counted the tokens." in text
    assert "interrupted" in text_of(report().model_copy(update={"interrupted": True}))


def test_the_terminal_does_not_obey_a_report() -> None:
    evil = report().model_copy(update={"model": "\x1b[31m[bold]x\r\n\x07", "tool": "[/]"})
    text = text_of(evil)
    assert "\x1b[31m" not in text
    assert "\x07" not in text
    assert "[bold]x" in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is no JSON"),
        (b"[]", "neither a report of `rouse bench` nor one of GuideLLM"),
        (b"{}", "target: Field required"),
        (b'{"metadata": {"version": 1}, "benchmarks": []}', "metadata.version"),
        (b'{"metadata": {"version": 2}, "benchmarks": [{}]}', "benchmarks.0"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_files_that_are_none(tmp_path: Path, body: bytes, said: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(body)
    with pytest.raises(ReportFileError, match=r"x\.json") as caught:
        read_report(file)
    assert said in str(caught.value)


def test_files_that_can_not_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ReportFileError, match="No such file"):
        read_report(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="can't be written"):
        write_report(report(), tmp_path / "file")


def test_hostile_files_are_shown_or_refused() -> None:
    # Small ones, or something is wrong with each of them.
    (level, *_) = report().levels
    small = report().model_copy(update={"levels": (level.model_copy(update={"requests": level.requests[:1]}),)})
    good = (json.loads(small.model_dump_json()), to_guidellm(small))
    shown_ones = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hostile.json"
        for body in drawn(bodies(good), 400):
            file.write_bytes(body)
            try:
                found = read_report(file)
            except ReportFileError:
                continue
            assert text_of(found)
            write_report(found, Path(folder) / "again")
            shown_ones += 1
    assert shown_ones > 5
