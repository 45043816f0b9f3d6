import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.settings import InvalidSettingsError, LoadedSettings

type Write = Callable[[str, str | bytes], Path]
type Complaints = Callable[..., list[str]]

NO_BRACKET = "expected ']' at the end of a table declaration"
SECONDS = "a number of seconds above 0 and at most 86400"
PORT = "an integer from 0 to 65535"
ROLE = 'one of "hub", "expert", "voice", "vision"'
URL = "expected mqtt://host or mqtts://host, with :port from 1 to 65535 where it is not the usual one"
NAME = "a name of at most 63 lower-case letters, digits, - and _"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('\n\n[gateway]\nport = "eighty"', f'rouse.toml:4: gateway.port: expected {PORT}, found "eighty"'),
        ("gateway.port = 70000", f"rouse.toml:1: gateway.port: expected {PORT}, found 70000"),
        ("gateway.port = true", f"rouse.toml:1: gateway.port: expected {PORT}, found true"),
        ("gateway.port = 1.5", f"rouse.toml:1: gateway.port: expected {PORT}, found 1.5"),
        (
            "gateway.port = 0x" + "f" * 5000,
            f"rouse.toml:1: gateway.port: expected {PORT}, found a very large integer",
        ),
        (
            "gateway.max_body_bytes = 1",
            "rouse.toml:1: gateway.max_body_bytes: expected an integer of at least 1024, found 1",
        ),
        (
            "gateway.connect_timeout = nan",
            f"rouse.toml:1: gateway.connect_timeout: expected {SECONDS}, found nan",
        ),
        (
            "agents.home.temperature = nan",
            "rouse.toml:1: agents.home.temperature: expected a number from 0 to 2, found nan",
        ),
        ("agents.home.control = 2", "rouse.toml:1: agents.home.control: expected true or false, found 2"),
        ("node.title = 5", "rouse.toml:1: node.title: expected a string, found 5"),
        ("node.title = 2026-01-02", "rouse.toml:1: node.title: expected a string, found 2026-01-02"),
        ("node.title = ['a']", "rouse.toml:1: node.title: expected a string, found an array"),
        ("node.title = {a = 1}", "rouse.toml:1: node.title: expected a string, found a table"),
        (
            'node.title = "\\u001b[31m"',
            "rouse.toml:1: node.title: expected a string, found a control character",
        ),
        ("paths.state = ''", 'rouse.toml:1: paths.state: expected a path, found ""'),
        ("paths.state = 1", "rouse.toml:1: paths.state: expected a path, found 1"),
        ("node.name = 'The Attic'", f'rouse.toml:1: node.name: expected {NAME}, found "The Attic"'),
        (
            "log.level = 'loud'",
            'rouse.toml:1: log.level: expected one of "debug", "info", "warning", "error", found "loud"',
        ),
        (
            "[node]\nroles = [\n  'hub',\n  'king',\n]",
            f'rouse.toml:4: node.roles[1]: expected {ROLE}, found "king"',
        ),
        (
            "node.roles = 'hub'",
            f'rouse.toml:1: node.roles: expected an array, each item {ROLE}, found "hub"',
        ),
        ("gateway = 5", "rouse.toml:1: gateway: expected a table, found 5"),
        ("[[gateway]]\nport = 1", "rouse.toml:1: gateway: expected a table, found an array"),
        ("experts = []", "rouse.toml:1: experts: expected a table, found an array"),
        ("experts.small = 'a.gguf'", 'rouse.toml:1: experts.small: expected a table, found "a.gguf"'),
        ("[experts.'A b']\nmodel = 'a'", f'rouse.toml:1: experts."A b": "A b" is not {NAME}'),
        ("[experts.small]\nslots = 2", "rouse.toml:1: experts.small.model: required, but not set"),
        (
            "broker.url = 'http://x'",
            f"rouse.toml:1: broker.url: {URL}",
        ),
        (
            "broker.url = 'mqtt://x:99999'",
            f"rouse.toml:1: broker.url: {URL}",
        ),
        (
            "broker.url = 'mqtt://anna:hunter2@x'",
            "rouse.toml:1: broker.url: must not hold a user or password: set username and password_file",
        ),
        (
            "[broker]\npassword_file = '/p'\npassword = 'hunter2'",
            "rouse.toml:3: broker.password: set password or password_file, not both",
        ),
        (
            "[broker]\nkey_file = '/k'",
            "rouse.toml:2: broker.key_file: cert_file and key_file go together",
        ),
        (
            "[broker]\nlisten_cert_file = '/c'",
            "rouse.toml:2: broker.listen_cert_file: listen_cert_file and listen_key_file go together",
        ),
        ("node.name = '" + "A" * 99 + "'", f'rouse.toml:1: node.name: expected {NAME}, found "{"A" * 60}…"'),
    ],
)
def test_a_wrong_value(write: Write, complaints: Complaints, content: str, complaint: str) -> None:
    write("rouse.toml", content)
    assert complaints() == [complaint]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[gateway]\nprot = 1", "rouse.toml:2: gateway.prot: unknown key; did you mean gateway.port?"),
        ("[gatway]\nport = 1", "rouse.toml:1: gatway: unknown key; did you mean gateway?"),
        ("gateway_port = 1", "rouse.toml:1: gateway_port: unknown key; did you mean gateway.port?"),
        ("gateway.zzz = 1", "rouse.toml:1: gateway.zzz: unknown key"),
        (
            "[agents.home]\nslots.a = 1",
            "rouse.toml:2: agents.home.slots: unknown key; did you mean experts.home.slots?",
        ),
        (
            "experts.big = {model = 'a', slot = 1}",
            "rouse.toml:1: experts.big.slot: unknown key; did you mean experts.big.slots?",
        ),
        ("'a b'.'[red]' = 1", 'rouse.toml:1: "a b": unknown key'),
        ("q.q.q.q.q.q.q.q.q = 1", "rouse.toml:1: q: unknown key"),
    ],
)
def test_an_unknown_key(write: Write, complaints: Complaints, content: str, complaint: str) -> None:
    write("rouse.toml", content)
    assert complaints() == [complaint]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[gateway\nport = 1", f"rouse.toml:1:9: not valid TOML: {NO_BRACKET}"),
        ("[gateway", f"rouse.toml:1:9: not valid TOML: {NO_BRACKET}"),
        ("a = 1\na = 2", "rouse.toml:2:6: not valid TOML: cannot overwrite a value"),
        (b"\xef\xbb\xbfa = 1\r\nb == 2\r\n", "rouse.toml:2:4: not valid TOML: invalid value"),
        ("a = " + "9" * 5000, "rouse.toml: not valid TOML: a number, key or nesting is too long"),
        ("a = " + "[" * 5000, "rouse.toml: not valid TOML: a number, key or nesting is too long"),
        (b"a = 1\nb = '\xff'", "rouse.toml:2: not UTF-8: save the file with that encoding"),
        ("a = 1".encode("utf-16"), "rouse.toml:1: not UTF-8: save the file with that encoding"),
    ],
)
def test_an_unreadable_text(write: Write, complaints: Complaints, content: str | bytes, complaint: str) -> None:
    write("rouse.toml", content)
    assert complaints() == [complaint]


def test_the_end_of_a_document_has_a_position(write: Write, complaints: Complaints) -> None:
    write("rouse.toml", 'a = 1\nb = """text')
    assert complaints() == ["rouse.toml:2:12: not valid TOML: unterminated string"]


def test_a_folder_in_place_of_a_file(tmp_path: Path, complaints: Complaints) -> None:
    (tmp_path / "rouse.toml").mkdir()
    assert complaints() == ["rouse.toml: cannot be read: Is a directory"]


def test_a_file_that_may_not_be_read(write: Write, complaints: Complaints, monkeypatch: pytest.MonkeyPatch) -> None:
    write("rouse.toml", "")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "rouse.toml: cannot be read: Permission denied" in complaints()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("node.groups = ['slow']", "rouse.toml:1: node.groups: there is no groups/slow.toml"),
        ("node.groups = ['../x']", f'rouse.toml:1: node.groups[0]: expected {NAME}, found "../x"'),
        ("node.groups = [1]", f"rouse.toml:1: node.groups[0]: expected {NAME}, found 1"),
        (
            "node.groups = 'slow'",
            f'rouse.toml:1: node.groups: expected an array, each item {NAME}, found "slow"',
        ),
    ],
)
def test_wrong_groups(write: Write, complaints: Complaints, content: str, complaint: str) -> None:
    write("rouse.toml", content)
    assert complaints() == [complaint]


def test_a_group_file_can_not_choose_groups(write: Write, complaints: Complaints) -> None:
    write("groups/all.toml", "node.groups = ['slow']")
    assert complaints() == [
        ("groups/all.toml:1: node.groups: a group file can't choose groups: do it in the host file or in rouse.toml")
    ]


def test_all_problems_are_reported_in_reading_order(write: Write, complaints: Complaints) -> None:
    write("groups/all.toml", "gateway.prot = 1\nlog.level = 1")
    write("hosts/attic.toml", "[gateway")
    write("rouse.toml", "[gateway]\nport = -1\nhost = 5\n[experts.small]\nprot = 1\n[nodes]")
    assert complaints({"ROUSE_LOG__LEVL": "info", "ROUSE_NODE__TITLE": "\udcff"}) == [
        "groups/all.toml:1: gateway.prot: unknown key; did you mean gateway.port?",
        'groups/all.toml:2: log.level: expected one of "debug", "info", "warning", "error", found 1',
        f"hosts/attic.toml:1:9: not valid TOML: {NO_BRACKET}",
        "rouse.toml:2: gateway.port: expected an integer from 0 to 65535, found -1",
        "rouse.toml:3: gateway.host: expected a string, found 5",
        "rouse.toml:5: experts.small.prot: unknown key; did you mean experts.small.port?",
        "rouse.toml:6: nodes: unknown key; did you mean node?",
        "environment variable ROUSE_LOG__LEVL: unknown setting; did you mean ROUSE_LOG__LEVEL?",
        "environment variable ROUSE_NODE__TITLE: not UTF-8",
    ]


def test_a_wrong_shape_is_found_beneath_a_stronger_layer(write: Write, complaints: Complaints) -> None:
    write("groups/all.toml", "gateway = 1")
    write("rouse.toml", "[gateway]\nport = 1")
    assert complaints() == ["groups/all.toml:1: gateway: expected a table, found 1"]


@pytest.mark.parametrize(
    "content",
    [
        "broker.password = 424242",
        "broker.password = [424242]",
        "broker.password = {a = 424242}",
        "broker.password = '424242\\u0007'".replace("'", '"'),
        "broker.password = 424242.0",
        "broker.pasword = '424242'",
        "broker.url = 'mqtt://a:424242@b'",
        "broker = {password = '424242', password_file = '/p'}",
        "broker.password = '424242'\nbroker.username = 1",
        "broker.password = '424242",
    ],
)
def test_an_error_never_shows_a_secret(write: Write, loaded: Callable[[], LoadedSettings], content: str) -> None:
    write("rouse.toml", content)
    with pytest.raises(InvalidSettingsError) as caught:
        loaded()
    error: BaseException | None = caught.value
    assert "424242" not in f"{error} {error!r}"
    assert error is not None
    assert error.__context__ is None
