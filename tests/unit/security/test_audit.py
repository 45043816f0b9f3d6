import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance.security.audit import AuditError, AuditLog, read_audit


def test_an_entry_is_one_line_for_the_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "audit" / "audit.jsonl"
    log = AuditLog(file, clock=lambda: 1_795_000_000.25)
    log.record("command", "wake", "attic", "ok", "a line\nbreak and ünicode")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.read_bytes().count(b"\n") == 1
    assert json.loads(file.read_text()) == {
        "time": 1_795_000_000.25,
        "who": "command",
        "what": "wake",
        "subject": "attic",
        "outcome": "ok",
        "detail": "a line\nbreak and ünicode",
    }
    assert [entry.detail for entry in read_audit(file, last=5)] == ["a line\nbreak and ünicode"]


def test_what_a_machine_says_does_not_fill_the_disk(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.record("hub", "recovery.ipmi", "attic", "failed", "x" * 1_000_000)
    assert (tmp_path / "audit.jsonl").stat().st_size < 2000


def test_a_line_that_the_power_cut_off_harms_no_other(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    AuditLog(file).record("hub", "wake", "attic", "ok")
    with file.open("ab") as torn:
        torn.write(b'{"time": 1795000000, "who": "hu')
    AuditLog(file).record("hub", "wake", "cellar", "ok")
    assert [entry.subject for entry in read_audit(file, last=10)] == ["attic", "cellar"]


def test_it_is_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file, max_bytes=500, kept=2)
    for number in range(40):
        log.record("hub", "wake", f"node-{number}", "ok")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= 500 for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    seen = [entry.subject for entry in read_audit(file, last=100, kept=2)]
    assert seen == [f"node-{number}" for number in range(40 - len(seen), 40)]
    assert [entry.subject for entry in read_audit(file, last=2, kept=2)] == ["node-38", "node-39"]


WRITER = """
import sys
from pathlib import Path
from appliance.security.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), max_bytes=4000, kept=1000)
for number in range(int(sys.argv[3])):
    log.record(sys.argv[2], "wake", str(number), "ok")
    print(number, flush=True)
"""


def test_two_processes_and_many_threads_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), name, "60"], stdout=subprocess.DEVNULL)
        for name in ("a", "b")
    ]
    log = AuditLog(file, max_bytes=4000, kept=1000)
    threads = [
        threading.Thread(target=lambda: [log.record("c", "wake", str(number), "ok") for number in range(30)])
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [process.wait(60) for process in processes] == [0, 0]
    entries = read_audit(file, last=1000, kept=1000)
    for name in ("a", "b"):
        assert [int(entry.subject) for entry in entries if entry.who == name] == list(range(60))
    assert len([entry for entry in entries if entry.who == "c"]) == 60


def test_what_was_reported_is_there_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), "a", "100000"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(20)][-1]
        os.kill(process.pid, signal.SIGKILL)
    assert [entry.subject for entry in read_audit(file, last=100_000, kept=1000)][: reported + 1] == [
        str(number) for number in range(reported + 1)
    ]


def test_a_log_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(AuditError, match="folder"):
        AuditLog(tmp_path / "folder" / "audit.jsonl").record("hub", "wake", "attic", "ok")
    link = tmp_path / "audit.jsonl"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match=r"audit\.jsonl"):
        AuditLog(link).record("hub", "wake", "attic", "ok")
    assert not (tmp_path / "elsewhere").exists()
