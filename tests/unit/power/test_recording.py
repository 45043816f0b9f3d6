import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.power.simulate import recording
from appliance.power.simulate.errors import DemandFileError
from appliance.power.simulate.recording import read_recording


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "demand.csv",
        "\ufeffTime,expert,seconds\r\n1764338500,small,\r\n2025-11-28T15:00:00+01:00, small ,4.5\r\n\r\n"
        "1764338400.5,big,1\r\n",
    )
    big, small = read_recording(path)
    assert (big.expert, big.times.tolist(), big.seconds.tolist()) == ("big", [1764338400.5], [1.0])
    assert small.expert == "small"
    assert small.times.tolist() == [1764338400.0, 1764338500.0]
    assert small.seconds[0] == 4.5
    assert small.seconds[1] != small.seconds[1]  # not known


def test_json_lines(tmp_path: Path) -> None:
    text = (
        '{"time": 1764338400.1, "expert": "small"}\n\n'
        '{"time": "2025-11-28T14:00:01Z", "expert": "small", "seconds": 2}\n'
    )
    (small,) = read_recording(write(tmp_path, "demand.jsonl", text))
    assert small.times.tolist() == [1764338400.1, 1764338401.0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "a.csv:1: expected the columns time,expert"),
        ("a.csv", "when,who\n1764338400,small\n", "a.csv:1: expected the columns time,expert"),
        ("a.csv", "time,expert\n", "a.csv: holds no request"),
        ("a.csv", "time,expert\n1764338400\n", "a.csv:2: expected 2 values, found 1"),
        ("a.csv", "time,expert\n1764338400,small\nyesterday,small\n", "a.csv:3: time: expected a Unix time"),
        ("a.csv", "time,expert\n2025-11-28T14:00:00,small\n", "with its offset"),
        ("a.csv", "time,expert\nnan,small\n", "a.csv:2: time: expected a Unix time"),
        ("a.csv", "time,expert\n1e400,small\n", "a.csv:2: time: expected a Unix time"),
        ("a.csv", "time,expert\n17,small\n", "a.csv:2: time: is not in the years 2000 to 2100"),
        ("a.csv", "time,expert\n1764338400,\n", "a.csv:2: expert: expected a name"),
        ("a.csv", f"time,expert\n1764338400,{'x' * 300}\n", "a.csv:2: expert: expected a name"),
        ("a.csv", "time,expert,seconds\n1764338400,small,-1\n", "a.csv:2: seconds: expected a number from 0"),
        ("a.csv", 'time,expert\n1764338400,"small\n', "a.csv:2: is not CSV"),
        ("a.csv", "time,expert\n" + "1" * 20_000, "a.csv:2: the line is longer"),
        ("a.csv", b"time,expert\n1764338400,\xff\n", "a.csv: is not a text in UTF-8"),
        ("a.jsonl", '{"time": 1764338400, "expert": "small"}\n{"time"', "a.jsonl:2: is not JSON"),
        ("a.jsonl", "[" * 9000, "a.jsonl:1: is not JSON"),
        ("a.jsonl", "[1764338400]", "a.jsonl:1: expected an object"),
        ("a.jsonl", '{"time": 1764338400, "expert": "small", "seconds": []}', "a.jsonl:1: seconds: expected a number"),
        ("a.jsonl", '{"time": [], "expert": "small"}', "a.jsonl:1: time: expected a Unix time"),
        ("a.jsonl", '{"time": 1764338400, "expert": {}}', "a.jsonl:1: expert: expected a name"),
        ("a.jsonl", '{"time": true, "expert": "small"}', "a.jsonl:1: time: expected a Unix time"),
        ("a.jsonl", '{"time": 1764338400, "expert": 5}', "a.jsonl:1: expert: expected a name"),
        ("a.jsonl", '{"time": 1764338400, "expert": "a\\u0007"}', "a.jsonl:1: expert: expected a name"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(DemandFileError) as caught:
        read_recording(write(tmp_path, name, text))
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_there_or_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DemandFileError, match="can't be read: No such file"):
        read_recording(tmp_path / "none.csv")
    monkeypatch.setattr(recording, "MOST_LINES", 2)
    with pytest.raises(DemandFileError, match="more than 2 lines"):
        read_recording(write(tmp_path, "a.csv", "time,expert\n" + "1764338400,small\n" * 2))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["time", "expert", "seconds", "x"]), json_values), max_size=3))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("demand") / "a.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    try:
        found = read_recording(path)
    except DemandFileError:
        return
    assert all(len(one.times) for one in found)


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["csv", "jsonl"]))
def test_anything_is_read_or_refused_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    path = tmp_path_factory.mktemp("demand") / f"a.{kind}"
    path.write_bytes((b"time,expert\n" if kind == "csv" else b"") + content)
    try:
        found = read_recording(path)
    except DemandFileError:
        return
    assert all(len(one.times) for one in found)
