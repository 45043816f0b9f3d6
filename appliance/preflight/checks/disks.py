"""Disks: what they say of their own health and wear.

SMART is read by `smartctl -j`, for which it must be root; eMMC tells its wear to everybody (JEDEC eMMC 5.0,
DEVICE_LIFE_TIME_EST and PRE_EOL_INFO, in sysfs).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from appliance.preflight.dump import Dump, measure, number
from appliance.preflight.result import ROLES, Result, amount
from appliance.preflight.wanted import Wanted

_WORN, _NEARLY_WORN = 95, 80
"""Per cent of what the maker promised."""
_EMMC_END, _EMMC_WARNING = 3, 2
"""PRE_EOL_INFO: 90 and 80 per cent of the reserved blocks are used up."""
_LOST_SECTORS = {5: "reallocated", 187: "uncorrectable", 197: "pending", 198: "offline uncorrectable"}
"""ATA attributes whose raw value counts sectors that are lost, or about to be."""
_REMAINING_LIFE = frozenset({177, 231, 233})
"""ATA attributes whose value goes down from 100: wear levelling count, SSD life left, media wearout indicator."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole disk."""

    name: str
    size: int
    model: str
    rotates: bool
    card: str | None
    """For eMMC and SD: MMC or SD."""

    @property
    def text(self) -> str:
        """Describe it."""
        kind = {"SD": "SD card", "MMC": "eMMC"}.get(self.card or "")
        if kind is None:
            # Virtual disks say of themselves that they turn.
            kind = "virtual disk" if self.name.startswith(("vd", "xvd")) else "hard disk" if self.rotates else "SSD"
        return ", ".join(filter(None, (self.model, amount(self.size), kind)))


def read_disks(dump: Dump) -> tuple[Disk, ...]:
    """Return the disks that stay in the machine."""
    disks = []
    for name in dump.names("/sys/block"):
        folder = f"/sys/block/{name}"
        sectors = dump.number(f"{folder}/size") or 0
        # mmcblk0boot0 and the like are partitions of the eMMC's own.
        if sectors <= 0 or dump.line(f"{folder}/removable") == "1" or re.fullmatch(r"mmcblk\d+(boot\d+|rpmb)", name):
            continue
        disks.append(
            Disk(
                name=name,
                size=sectors * 512,
                model=dump.line(f"{folder}/device/model") or "",
                rotates=dump.line(f"{folder}/queue/rotational") == "1",
                card=dump.line(f"{folder}/device/type") if name.startswith("mmcblk") else None,
            )
        )
    return tuple(disks)


def check_disks(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check every disk."""
    for disk in read_disks(dump):
        yield _card(dump, disk) if disk.card is not None else _smart(dump, disk)


def _result(disk: Disk) -> Result:
    needed = "a disk that does not say that it fails: keys, settings and models are on it"
    return Result(f"disk.health.{disk.name}", f"Disk {disk.name}", "ok", disk.text, needed)


def _judged(disk: Disk, *, bad: bool, warn: bool, texts: list[str]) -> Result:
    result = replace(_result(disk), found="; ".join((disk.text, *filter(None, texts))))
    if bad or warn:
        remedy = "Save what is on it and replace it." if bad else "Save what is on it, and watch it."
        return replace(result, verdict="bad" if bad else "warn", remedy=remedy, limits=ROLES if bad else ())
    return result


def _smart(dump: Dump, disk: Disk) -> Result:
    told = dump.json(f"smart {disk.name}")
    unknown = replace(_result(disk), verdict="unknown")
    if not told:
        if dump.command("user") != "0":
            return replace(unknown, found=f"{disk.text}; health: only root may ask", needs_root=True)
        return replace(unknown, found=f"{disk.text}; health: no smartctl", remedy="Install smartmontools.")
    passed = _object(told, "smart_status").get("passed")
    worn, lost = wear(told), losses(told)
    if not isinstance(passed, bool) and worn is None and not lost:
        return replace(unknown, found=f"{disk.text}; health: it knows no SMART, or stands still")
    test = {True: "SMART passed", False: "its own test failed"}.get(passed, "") if isinstance(passed, bool) else ""
    return _judged(
        disk,
        bad=passed is False or (worn or 0) >= _WORN,
        warn=bool(lost) or (worn or 0) >= _NEARLY_WORN,
        texts=[test, f"{worn} % worn" if worn is not None else "", *lost],
    )


def wear(told: Mapping[str, Any]) -> int | None:
    """Return how much of a disk's life is used up, in per cent; it may be more than 100."""
    used = measure(_object(told, "nvme_smart_health_information_log").get("percentage_used"))
    if used is not None:
        return round(min(max(used, 0), 255))
    for attribute in _attributes(told):
        left = measure(attribute.get("value"))
        if number(attribute.get("id")) in _REMAINING_LIFE and left is not None:
            return round(min(max(100 - left, 0), 100))
    return None


def losses(told: Mapping[str, Any]) -> list[str]:
    """Return what a disk has lost, in words."""
    found = []
    log = _object(told, "nvme_smart_health_information_log")
    for key, text in (("critical_warning", "critical warning {}"), ("media_errors", "{} media errors")):
        if value := measure(log.get(key)):
            found.append(text.format(round(value)))
    for attribute in _attributes(told):
        what = _LOST_SECTORS.get(number(attribute.get("id")) or 0)
        raw = measure(_object(attribute, "raw").get("value"))
        # Some makers put other counters into the upper bytes.
        if what is not None and raw and (sectors := round(raw) & 0xFFFFFFFF):
            found.append(f"{sectors} {what} sectors")
    return found


def _attributes(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    table = _object(told, "ata_smart_attributes").get("table")
    return [one for one in table if isinstance(one, dict)] if isinstance(table, list) else []


def _object(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = told.get(key)
    return value if isinstance(value, dict) else {}


def _card(dump: Dump, disk: Disk) -> Result:
    folder = f"/sys/block/{disk.name}/device"
    steps = [step for part in (dump.line(f"{folder}/life_time") or "").split() if (step := _hex(part))]
    end = _hex(dump.line(f"{folder}/pre_eol_info") or "") or 0
    if not steps and not end:
        remedy = "Better keep the state on an SSD, and a copy elsewhere: cards wear out early."
        found = f"{disk.text}; health: cards tell none"
        return replace(_result(disk), verdict="warn", found=found, remedy=remedy, limits=("hub", "vision"))
    worst = max(steps, default=0)
    return _judged(
        disk,
        bad=end >= _EMMC_END or worst > 10,
        warn=end == _EMMC_WARNING or worst >= 9,
        texts=[f"at most {worst * 10} % worn" if 0 < worst <= 10 else "worn out" if worst else ""],
    )


def _hex(text: str) -> int | None:
    match = re.fullmatch("0x([0-9a-fA-F]{1,4})", text)
    return int(match[1], 16) if match else None
