import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.routing import dataset
from appliance.routing.dataset import Answer, line_of, merge, numbered, read, write
from appliance.routing.errors import DataSetError
from tests.fuzzing import JSON

# The example of LLMRouter's llmrouter/data/README.md.
THEIRS: dict[str, Any] = {
    "task_name": "gsm8k", "query": "Janet has 4 apples. She gives 2 to Bob. How many does she have left?",
    "ground_truth": "2", "metric": "GSM8K", "choices": None, "task_id": None, "model_name": "llama3-chatqa-1.5-8b",
    "response": "Janet has 4 apples and gives 2 to Bob, so she has 4 - 2 = 2 apples left.", "token_num": 453,
    "input_tokens": 449, "output_tokens": 4, "response_time": 1.7864494324, "api_key_used": "", "performance": 1.0,
    "embedding_id": 42, "user_id": None, "fig_id": None,
}  # fmt: skip


def test_what_llmrouter_writes_is_read_and_written_again_with_all_it_wants(tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    file.write_text(json.dumps(THEIRS) + "\n\n" + json.dumps({**THEIRS, "extra": [1], "performance": True}) + "\n")
    first, second = read(file)
    assert first.price == pytest.approx(1.7864494324)
    assert first.template == f"gsm8k: {THEIRS['query']}"
    assert second.performance == 1.0
    write(tmp_path / "ours.jsonl", [first, second])
    lines = [json.loads(line) for line in (tmp_path / "ours.jsonl").read_text().splitlines()]
    assert THEIRS.items() <= lines[0].items()
    assert lines[1]["extra"] == [1]


def test_one_number_for_all_answers_to_a_query() -> None:
    answers = [
        Answer(query=query, model_name=name, performance=1.0) for name in ("a", "b") for query in ("x", "y", "z")
    ]
    assert [answer.embedding_id for answer in numbered(answers)] == [0, 1, 2, 0, 1, 2]


def test_a_line_that_was_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    whole = line_of(Answer.model_validate(THEIRS))
    file.write_text(whole + whole[:100])
    assert len(read(file, drop_broken_end=True)) == 1
    with pytest.raises(DataSetError, match=r"data\.jsonl:2: .*mend or remove"):
        read(file)
    file.write_text(whole[:100] + "\n" + whole)
    with pytest.raises(DataSetError, match=r"data\.jsonl:1"):
        read(file, drop_broken_end=True)


@pytest.mark.parametrize(
    "change",
    [{"performance": 1.5}, {"performance": None}, {"model_name": ""}, {"query": None}, {"response_time": -1}],
)
def test_wrong_lines(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({**THEIRS, **change}) + "\n")
    with pytest.raises(DataSetError, match=next(iter(change))):
        read(tmp_path / "x.jsonl")


def test_too_long_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "LONGEST_LINE", 100)
    (tmp_path / "x.jsonl").write_text(json.dumps(THEIRS))
    with pytest.raises(DataSetError, match="longer than 100"):
        read(tmp_path / "x.jsonl")
    with pytest.raises(DataSetError, match="can't be read"):
        read(tmp_path / "none.jsonl")


def test_half_a_character_is_written_as_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({**THEIRS, "response": "x \ud83d"}) + "\n")
    answers = read(file)
    write(file, answers)
    assert read(file) == answers


def test_a_number_beyond_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(THEIRS)[:-1] + ', "extra": 1e999}')
    with pytest.raises(DataSetError, match=r"x\.jsonl:1: 1e999 is too large"):
        read(tmp_path / "x.jsonl")


def test_past_runs_with_ratings_are_taken_in_once(tmp_path: Path) -> None:
    file, runs = tmp_path / "data.jsonl", tmp_path / "runs.jsonl"
    old, rated = [
        Answer(query="x", model_name="a", response="r", performance=performance) for performance in (1.0, 0.25)
    ]
    new = Answer(query="y", model_name="a", performance=0.5, embedding_id=7)
    write(runs, [rated, new])
    assert merge(file, [runs]) == 2
    write(file, [old])
    assert merge(file, [runs]) == 2
    assert [(one.query, one.performance, one.embedding_id) for one in read(file)] == [("x", 0.25, 0), ("y", 0.5, 1)]
    assert merge(file, [runs]) == 0
    assert merge(file, []) == 0
    with pytest.raises(DataSetError, match="can't be read"):
        merge(file, [tmp_path / "gone"])


LINES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(sorted(THEIRS)), JSON).map(lambda some: json.dumps({**THEIRS, **some}).encode())
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(LINES)
def test_any_line_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    try:
        found = read(tmp_path / "x.jsonl")
    except DataSetError:
        return
    for answer in found:
        assert 0 <= answer.performance <= 1
        assert read_back(tmp_path, answer) == answer


def read_back(folder: Path, answer: Answer) -> Answer:
    (folder / "again.jsonl").write_text(line_of(answer), encoding="utf-8")
    return read(folder / "again.jsonl")[0]
