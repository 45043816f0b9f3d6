"""Back up, lose everything, restore, compare."""

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.backup.conftest import House


def test_all_comes_back_with_owners_and_modes(house: House) -> None:
    before, facts = house.tree(), house.facts()
    made = json.loads(house.rouse("now", "--json").stdout)
    assert made["problems"] == []
    before["secrets/backup.password"] = house.tree()["secrets/backup.password"]

    shutil.rmtree(house.state / "secrets")
    (house.state / "memory.db").write_bytes(b"torn")
    (house.state / "stranger").write_text("was not there")
    assert "--password-file" in house.rouse("restore", made["snapshot"], expect=1).stderr

    password = house.top / "on-paper"
    password.write_bytes(before["secrets/backup.password"][2])
    refused = house.rouse("restore", made["snapshot"], "--password-file", str(password), expect=4)
    assert "--force" in refused.stderr
    assert (house.state / "stranger").exists()
    done = house.rouse("restore", made["snapshot"], "--force", "--json", "--password-file", str(password))
    assert house.tree() == before
    assert house.facts() == facts
    told = json.loads(done.stdout)
    kept = Path(told["before"]) / "old" / "state"
    assert (kept / "stranger").read_text() == "was not there"
    assert (house.state / "models" / "small.gguf").stat().st_size == 4096
    assert [model["name"] for model in told["models"]] == ["small.gguf"]
    house.rouse("now")
    house.rouse("verify")


def test_neither_models_nor_what_people_said_leave_the_machine(house: House) -> None:
    house.rouse("now")
    folder = house.top / "looked-at"
    house.rouse("restore", "--to", str(folder))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert "state/secrets/gateway.key" in names
    assert "config/rouse.toml" in names
    assert not [name for name in names if name.startswith(("state/models", "state/prefixes", "state/backup"))]
    assert "state/run.sock" not in names
    again = house.rouse("restore", "--to", str(folder), expect=4)
    assert "is not empty" in again.stderr


def test_new_machine(house: House) -> None:
    before, facts = house.tree(), house.facts()
    shown = house.rouse("init").stdout.splitlines()[-1]
    before["secrets/backup.password"] = house.tree()["secrets/backup.password"]
    house.rouse("now")
    config = (house.config / "rouse.toml").read_text()

    shutil.rmtree(house.state)
    password = house.top / "on-paper"
    password.write_text(shown + "\n")
    done = house.rouse("restore", "--password-file", str(password))
    assert house.tree() == before
    assert house.facts() == facts
    assert (house.config / "rouse.toml").read_text() == config
    assert "small.gguf" in done.stdout

    # The lock and the record work on in the restored state.
    house.rouse("now")


def test_other_settings_are_replaced_only_when_asked(house: House) -> None:
    house.rouse("now")
    shutil.move(house.state / "secrets" / "backup.password", house.top / "on-paper")
    shutil.rmtree(house.state)
    old = (house.config / "rouse.toml").read_text()
    new = old.replace("[node]", "[node] # changed")
    (house.config / "rouse.toml").write_text(new)
    password = ("--password-file", str(house.top / "on-paper"))
    house.rouse("restore", *password, expect=4)
    assert (house.config / "rouse.toml").read_text() == new
    assert not (house.state / "memory.db").exists()
    done = house.rouse("restore", "--force", "--json", *password)
    assert (house.config / "rouse.toml").read_text() == old
    assert (Path(json.loads(done.stdout)["before"]) / "old/config/rouse.toml").read_text() == new


def test_a_database_in_use_is_copied_whole(house: House) -> None:
    """A writer moves money between accounts all the time; in no copy may any be missing."""
    path = house.state / "accounts.db"
    with closing(sqlite3.connect(path)) as accounts:
        accounts.execute("PRAGMA journal_mode=WAL")
        accounts.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INTEGER, padding BLOB)")
        accounts.executemany("INSERT INTO accounts VALUES (?, 100, zeroblob(3000))", [(n,) for n in range(200)])
        accounts.commit()
    stop = threading.Event()
    transfers = 0

    def write() -> None:
        nonlocal transfers
        with closing(sqlite3.connect(path, timeout=30)) as accounts:
            while not stop.is_set():
                one, other = transfers % 200, (transfers * 7 + 3) % 200
                accounts.execute(
                    "UPDATE accounts SET money = money - 1, padding = randomblob(3000) WHERE id = ?", (one,)
                )
                accounts.execute(
                    "UPDATE accounts SET money = money + 1, padding = randomblob(3000) WHERE id = ?", (other,)
                )
                accounts.commit()
                transfers += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            house.rouse("now")
            folder = house.top / f"copy-{number}"
            house.rouse("restore", "--to", str(folder))
            with closing(sqlite3.connect(folder / "state/accounts.db")) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert copy.execute("SELECT sum(money), count(*) FROM accounts").fetchone() == (20_000, 200)
    finally:
        stop.set()
        writer.join()
    assert transfers > 0
    status = path.stat()
    for companion in house.state.glob("accounts.db-*"):
        assert companion.stat().st_uid == status.st_uid


def test_a_damaged_database_is_kept_and_told(house: House) -> None:
    content = bytearray((house.state / "memory.db").read_bytes())
    content[4096:8192] = os.urandom(4096)
    (house.state / "memory.db").write_bytes(content)
    made = json.loads(house.rouse("now", "--json").stdout)
    assert len(made["problems"]) == 1
    assert "memory.db" in made["problems"][0]
    folder = house.top / "copy"
    house.rouse("restore", "--to", str(folder))
    assert (folder / "state/memory.db").read_bytes() == bytes(content)
    assert _metrics(house)["rouse_backup_problems"] == 1


def test_only_what_the_settings_keep_stays(house: House) -> None:
    house.settings(more="keep_daily = 1\nkeep_weekly = 0\nkeep_monthly = 0")
    for number in range(3):
        (house.state / "changing").write_text(str(number))
        made = json.loads(house.rouse("now", "--json").stdout)
    listed = json.loads(house.rouse("list", "--json").stdout)["backups"]
    assert [one["id"][:8] for one in listed] == [made["snapshot"]]
    assert made["forgotten"] == 1


def test_metrics(house: House) -> None:
    house.rouse("now")
    found = _metrics(house)
    assert found["rouse_backup_last_success_timestamp_seconds"] >= found["rouse_backup_last_attempt_timestamp_seconds"]
    assert found["rouse_backup_files"] == 8
    assert found["rouse_backup_last_verification_timestamp_seconds"] == 0
    assert found["rouse_backup_password_shown"] == 0
    house.rouse("verify")
    house.rouse("password")
    found = _metrics(house)
    assert found["rouse_backup_last_verification_timestamp_seconds"] > 0
    assert found["rouse_backup_password_shown"] == 1


def test_verifications_take_turns(house: House) -> None:
    house.rouse("now")
    parts = [json.loads(house.rouse("verify", "--json").stdout)["part"] for _ in range(6)]
    assert parts == [1, 2, 3, 4, 5, 1]


def test_another_machine_of_the_repository_is_not_ours(house: House) -> None:
    house.rouse("now")
    own = house.config / "rouse.toml"
    own.write_text(own.read_text().replace('"attic"', '"cellar"'))
    refused = house.rouse("restore", "--force", expect=1)
    assert "there are backups of attic" in refused.stderr
    assert json.loads(house.rouse("list", "--json").stdout)["backups"] == []
    assert len(json.loads(house.rouse("list", "--all", "--json").stdout)["backups"]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_that_only_root_may_read_are_for_root_only(house: House) -> None:
    house.rouse("now")
    for path in (house.state / "backup").rglob("*"):
        assert path.stat().st_uid == 0
    assert (house.state / "backup").stat().st_mode & 0o077 == 0
    assert not (house.state / "backup" / "staging").exists()


def _metrics(house: House) -> dict[str, float]:
    text = (house.metrics / "rouse_backup.prom").read_text()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
