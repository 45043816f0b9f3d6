import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.updates.errors import InstallError, SourceError
from appliance.updates.published import read_sums
from appliance.updates.slots import parse_slots

UUID = "12345678-1234-1234-1234-123456789abc"
DIGEST = "ab" * 32


def line(name: str, digest: str = DIGEST) -> str:
    return f"{digest}  {name}\n"


def version(number: str, architecture: str = "amd64") -> str:
    stem = f"rouse_{number}_{architecture}"
    return line(f"{stem}_{UUID}.root") + line(f"{stem}_{UUID}.verity") + line(f"{stem}.efi") + line(f"{stem}.raw.zst")


def test_versions_are_newest_first_and_of_this_machine() -> None:
    text = version("0.9") + version("0.10") + version("0.11", "arm64") + line("SOMETHING")
    found = read_sums(text.encode(), "amd64")
    assert [release.version for release in found] == ["0.10", "0.9"]
    assert [file.kind for file in found[0].files] == ["verity", "root", "efi"]
    assert found[0].files[1].part == UUID
    assert found[0].files[2].part is None


def test_a_version_that_lacks_a_file_is_none() -> None:
    text = "".join(version("1").splitlines(keepends=True)[1:])
    assert read_sums(text.encode(), "amd64") == ()


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"hello\n",
        f"{DIGEST}  ../rouse_1_amd64.efi\n".encode(),
        f"{DIGEST[:-1]}  rouse_1_amd64.efi\n".encode(),
        (version("1") + version("1")).encode(),
        line(f"rouse_1_amd64_{UUID}.efi").encode(),
        line("rouse_1_amd64.root").encode(),
    ],
)
def test_what_is_no_list_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError):
        read_sums(text, "amd64")


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        read_sums(text, "amd64")
    except SourceError:
        return


LISTING = b"""{"blockdevices": [
  {"size": 8589934592, "partlabel": null, "parttype": null, "partuuid": null},
  {"size": 536870912, "partlabel": "esp", "parttype": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "partuuid": "e"},
  {"size": 2147483648, "partlabel": "rouse_1.0", "parttype": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "partuuid": "a"},
  {"size": 33554432, "partlabel": "rouse_1.0", "parttype": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "partuuid": "b"},
  {"size": 1073741824, "partlabel": "rouse_2.0", "parttype": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "partuuid": "c"},
  {"size": 33554432, "partlabel": "_empty", "parttype": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "partuuid": "d"}
]}"""


def test_slots_are_what_both_partitions_say_and_the_smaller_one_counts() -> None:
    slots = parse_slots(LISTING, "amd64")
    assert slots.versions == {"1.0"}
    assert (slots.root_size, slots.verity_size) == (1 << 30, 32 << 20)
    assert slots.parts == {"a", "b", "c", "d"}


@pytest.mark.parametrize("listing", [b"", b"[]", b'{"blockdevices": []}', b'{"blockdevices": [{"size": "a lot"}]}'])
def test_a_disk_without_slots_is_refused(listing: bytes) -> None:
    with pytest.raises(InstallError):
        parse_slots(listing, "amd64")
