"""A dump is hostile: whatever it holds, it is taken apart or refused, and nothing else happens."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.preflight.dump import LONGEST_DUMP, LONGEST_PROLOGUE, Dump, parse
from appliance.preflight.errors import DumpError
from appliance.preflight.report import Moment, report_on
from tests.unit.preflight.machines import NAMES, TOKEN, content, wanted

WANTED = wanted({"broker": {"url": "mqtt://hub.lan"}, "experts": {"small": {"model": "x.gguf"}}})


def dumped(*lines: str) -> bytes:
    return "\n".join((f"rouse-preflight 1 {TOKEN}", *lines, f"rouse-preflight end {TOKEN}", "")).encode()


def test_records() -> None:
    lines = (
        "@file /proc/a",
        "|one",
        "|two",
        "",
        "@fact uefi",
        "|yes",
        "@link /x/device",
        "|../../y",
        "@command c",
        "|",
    )
    dump = parse(dumped(*lines), TOKEN)
    assert dump.file("/proc/a") == "one\ntwo"
    assert dump.line("/proc/a") == "one"
    assert dump.fact("uefi") == "yes"
    assert dump.link("/x/device") == "y"
    assert dump.command("c") == ""
    assert dump.command("d") is None
    assert dump.names("/proc") == ("a",)
    assert dump.names("/x") == ("device",)


def test_what_a_login_shell_says_is_passed_over() -> None:
    data = b"Welcome!\r\n\x1b[31mfortune\x1b[0m\n" + dumped("@fact uefi", "|yes") + b"logout\n"
    assert parse(data, TOKEN).fact("uefi") == "yes"


def test_content_can_not_look_like_a_record() -> None:
    dump = parse(dumped("@file /a", "|@file /b", f"|rouse-preflight end {TOKEN}", "|x"), TOKEN)
    assert dump.file("/b") is None
    assert dump.file("/a") == f"@file /b\nrouse-preflight end {TOKEN}\nx"


def test_escape_sequences_never_come_through() -> None:
    dump = parse(dumped("@file /a", "|\x1b]0;title\x07\x9bred", "@command \x1b[2J", "|x"), TOKEN)
    assert all(character.isprintable() for character in str(dump.file("/a")))
    assert dump.command("\ufffd[2J") == "x"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it said nothing"),
        (b"This account is currently not available.\n", "This account is currently not available."),
        (b"x\n" * LONGEST_PROLOGUE, "it sent something else"),
        (b"x" * (LONGEST_DUMP + 1), "more than 4 MiB"),
        (dumped().replace(b"end", b"eng"), "is no dump"),
        (dumped("@file /a").rpartition(b"rouse")[0], "breaks off"),
        (dumped("no record"), "is no dump"),
        (dumped("|content of nothing"), "is no dump"),
        (dumped("@eval x", "|y"), "is no dump"),
        (dumped("@file"), "is no dump"),
        (dumped("@file /a", "|x", "@file /a", "|y"), "twice"),
        (dumped("@file /" + "a" * 400), "is no dump"),
        (dumped(*(f"@fact {number}" for number in range(20_001))), "is no dump"),
        (b"rouse-preflight 1 another\nrouse-preflight end another\n", "runs no script"),
    ],
    ids=[
        "nothing", "no-log-in", "prologue", "too-long", "no-end", "breaks-off", "no-record", "no-header", "kind",
        "no-name", "twice", "long-name", "many", "another-run",
    ],
)  # fmt: skip
def test_what_is_no_dump_is_refused_in_one_short_line(data: bytes, said: str) -> None:
    with pytest.raises(DumpError, match=re.escape(said)) as caught:
        parse(data, TOKEN)
    text = str(caught.value)
    assert len(text) < 400
    assert text.isprintable()


def _reported(dump: Dump) -> None:
    found = report_on(dump, WANTED, host="x", time=0.0, seconds=0.0, moment=Moment(0.0, 1.0))
    assert len(found.fitness) == 4
    for result in found.results:
        assert result.found.isprintable(), result
        assert len(result.found) < 2000, result


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=400))
def test_bytes(data: bytes) -> None:
    for candidate in (data, dumped() + data, b"\n".join((f"rouse-preflight 1 {TOKEN}".encode(), data))):
        try:
            dump = parse(candidate, TOKEN)
        except DumpError:
            continue
        _reported(dump)


LINES = {name: content(name).decode().splitlines()[1:-1] for name in NAMES}
HARD = (
    "", "9" * 40, "-1", "0x" + "f" * 30, "NaN", "1e999", "\u0661\u0662", "0-99999", "5-1,", "\x00", "[" * 3000, "null",
    '{"clock": {"status": 1e400}, "wake_on_lan": 3, "peer": {"seconds": "x"}, "python": []}',
    '{"ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 1e300}}, 7]}, "smart_status": 3}',
    "/dev/sda1 1 2 3 4% /", "00000000 00000000", "inet 999.1.1.1/8", "2: e    inet 300.0.0.1/8 x",
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_machine_with_a_few_lines_changed_is_still_reported_on(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    lines = list(LINES[name])
    for _ in range(data.draw(st.integers(1, 12))):
        index = data.draw(st.integers(0, len(lines) - 1))
        if lines[index].startswith("|"):
            lines[index] = "|" + data.draw(
                st.sampled_from(HARD) | st.text(max_size=60).map(lambda text: text.replace("\n", " "))
            )
    try:
        dump = parse(dumped(*lines), TOKEN)
    except DumpError:
        return
    _reported(dump)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_machine_with_records_exchanged_is_still_reported_on(data: st.DataObject) -> None:
    """Every file has what belongs into another one."""
    lines = LINES[data.draw(st.sampled_from(NAMES))]
    names = [line for line in lines if line.startswith("@")]
    shuffled = iter(data.draw(st.permutations(names)))
    _reported(parse(dumped(*(next(shuffled) if line.startswith("@") else line for line in lines)), TOKEN))
