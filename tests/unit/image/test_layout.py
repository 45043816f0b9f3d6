from itertools import pairwise

import pytest

from image_build.disk import table
from image_build.layout import (
    ALIGNMENT,
    PLATFORMS,
    Architecture,
    Artifacts,
    check_version,
    disk_size,
    partitions,
    split_root_hash,
)

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_partitions_follow_one_another_without_gaps(architecture: Architecture) -> None:
    parts = partitions(PLATFORMS[architecture], "1.2.3", HASH, 1)
    assert parts[0].start == ALIGNMENT
    for before, after in pairwise(parts):
        assert before.start + before.size == after.start
        assert after.start % ALIGNMENT == 0
    assert disk_size(parts) == parts[-1].start + parts[-1].size + ALIGNMENT


def test_the_data_partition_is_last_so_that_it_can_grow() -> None:
    assert partitions(PLATFORMS["amd64"], "1", HASH, 1)[-1].name == "var"


def test_root_and_verity_are_found_by_the_root_hash() -> None:
    parts = {part.name: part for part in partitions(PLATFORMS["amd64"], "1", HASH, 1)}
    root, verity = split_root_hash(HASH)
    assert parts["root-a"].identity == root
    assert parts["verity-a"].identity == verity
    assert root.hex + verity.hex == HASH


def test_identifiers_are_all_different() -> None:
    parts = partitions(PLATFORMS["amd64"], "1", HASH, 1)
    # A hash tree's halves are the same only in this test.
    assert len({part.identity for part in parts}) >= len(parts) - 1


@pytest.mark.parametrize("version", ["", "a", "1/2", "1 2", "1" * 25, "..", "1\n", "1_2", "1-2"])
def test_a_version_that_breaks_names_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        check_version(version)


@pytest.mark.parametrize("version", ["0.1.0", "2026.11.23.4", "1.0~rc1"])
def test_a_version_fits_into_a_label(version: str) -> None:
    parts = partitions(PLATFORMS["amd64"], check_version(version), HASH, 1)
    assert all(len(part.label) <= 36 for part in parts)


def test_the_partition_table_says_sectors() -> None:
    lines = table(partitions(PLATFORMS["amd64"], "1", HASH, 1)).splitlines()
    assert lines[0] == "label: gpt"
    assert lines[4].startswith("start=2048, size=1048576, ")
    assert lines[4].endswith('name="esp"')


def test_files_for_updates_carry_version_and_identifier() -> None:
    root, _ = split_root_hash(HASH)
    assert Artifacts("1.0", "amd64").root(root) == f"rouse_1.0_amd64_{root}.root"
