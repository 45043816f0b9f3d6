"""The system below: kernel, distribution, systemd, Python, firmware, virtualisation, who we are on it."""

import re
from collections.abc import Iterator
from dataclasses import replace

from appliance.preflight.checks.processor import read_processor
from appliance.preflight.dump import Dump
from appliance.preflight.result import ROLES, Result
from appliance.preflight.wanted import Wanted

LEAST_KERNEL, GOOD_KERNEL = (5, 4), (6, 1)
LEAST_SYSTEMD = 252
"""Debian 12's: it knows the options of the units' sandboxes."""
LEAST_PYTHON = (3, 13)
_DEBIAN, _UBUNTU = 13, 25
"""The first that bring such a Python."""


def check_system(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check what Rouse would be deployed on."""
    yield kernel(dump)
    yield distribution(dump)
    yield systemd(dump)
    yield python(dump)
    yield administrator(dump)
    yield firmware(dump)
    yield virtual_machine(dump)
    yield kvm(dump)


def version(text: str | None) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    match = re.match(r"\D{0,20}?([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})", text or "")
    return tuple(int(part) for part in match[1].split(".")) if match is not None else ()


def kernel(dump: Dump) -> Result:
    """Check the kernel's version."""
    release = dump.line("/proc/sys/kernel/osrelease")
    known = version(release)
    needed = f"{_dotted(GOOD_KERNEL)} (Debian 12's) or newer, for the services' sandboxes and the firewall"
    result = Result("system.kernel", "Kernel", "ok", f"Linux {release}", needed)
    if not known:
        return replace(result, verdict="unknown", found="not told")
    if known < LEAST_KERNEL:
        return replace(result, verdict="bad", remedy="Upgrade the system.", unfit=ROLES)
    if known < GOOD_KERNEL:
        return replace(result, verdict="warn", remedy="Upgrade the system; older ones were not tried.")
    return result


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


def distribution(dump: Dump) -> Result:
    """Check that the deploys know the distribution."""
    fields = {}
    for line in (dump.file("/etc/os-release") or "").split("\n"):
        name, separator, value = line.partition("=")
        if separator:
            fields[name] = value.strip().strip("\"'")
    found = fields.get("PRETTY_NAME") or fields.get("NAME") or ""
    needed = "Debian 13 or newer, or the image; the deploys use apt"
    result = Result("system.distribution", "System", "ok", found, needed)
    if not found:
        return replace(result, verdict="unknown", found="no /etc/os-release")
    number = version(fields.get("VERSION_ID"))
    family = {fields.get("ID", ""), *fields.get("ID_LIKE", "").split()}
    least = {"debian": _DEBIAN, "ubuntu": _UBUNTU}.get(fields.get("ID", ""))
    if family.isdisjoint({"debian", "ubuntu"}):
        return replace(result, verdict="warn", remedy="Flash the image, or install Debian 13.", limits=ROLES)
    if least is not None and number and number[0] < least:
        return replace(result, verdict="warn", remedy="Upgrade it: its Python is too old.", limits=ROLES)
    return result


def systemd(dump: Dump) -> Result:
    """Check that systemd runs the machine, and its version."""
    found = (dump.command("systemd") or "").partition("\n")[0]
    known = version(found)
    first = dump.line("/proc/1/comm")
    needed = f"systemd {LEAST_SYSTEMD} or newer as the first process: the services are its units"
    result = Result("system.systemd", "systemd", "ok", found, needed)
    if first is not None and first != "systemd":
        found = f"the first process is {first}{f'; {found} is installed' if found else ''}"
        remedy = "Use a system that systemd starts; a container needs one of its own."
        return replace(result, verdict="warn", found=found, remedy=remedy, limits=ROLES)
    if not known:
        return replace(result, verdict="unknown", found="not told")
    if known[0] < LEAST_SYSTEMD:
        return replace(result, verdict="warn", remedy="Upgrade the system.", limits=ROLES)
    return result


def python(dump: Dump) -> Result:
    """Check the system's Python, which runs the appliance."""
    told = dump.json("probe").get("python")
    needed = (
        f"Python {_dotted(LEAST_PYTHON)} or newer, which a deploy runs the appliance with; a checkout brings its own"
    )
    result = Result("system.python", "Python", "ok", f"Python {str(told)[:20]}", needed)
    if not isinstance(told, str):
        found = "no python3" if dump.command("probe") is None else "python3 does not answer"
        remedy = "Install python3; some checks here need it too."
        return replace(result, verdict="warn", found=found, remedy=remedy)
    if version(told) < LEAST_PYTHON:
        return replace(result, verdict="warn", remedy="Upgrade to Debian 13.", limits=ROLES)
    return result


def administrator(dump: Dump) -> Result:
    """Check whether the user could deploy."""
    user, groups = dump.command("user"), (dump.command("groups") or "").split()
    needed = "root, or a user that may use sudo: a deploy installs packages. These checks need neither"
    result = Result("system.administrator", "Rights", "ok", "root", needed)
    if user is None:
        return replace(result, verdict="unknown", found="not told")
    if user == "0":
        return result
    member = sorted({"sudo", "wheel", "admin"}.intersection(groups))
    if member:
        return replace(result, found=f"user {user}, in the group {member[0]}")
    remedy = "Log in as root or as a member of the group sudo before you deploy."
    return replace(result, verdict="warn", found=f"user {user}, in no group for sudo", remedy=remedy)


def firmware(dump: Dump) -> Result:
    """Say what the image would meet."""
    needed = "UEFI without Secure Boot for the image, which carries no signature that firmware knows; deploys need none"
    result = Result("system.firmware", "Firmware", "ok", "UEFI", needed)
    if dump.fact("uefi") is None:
        if read_processor(dump).architecture != "x86_64":
            return replace(result, found="no UEFI")
        return replace(
            result, verdict="warn", found="BIOS, or UEFI in its old mode", remedy="Deploy to it; the image won't start."
        )
    numbers = (dump.command("secure-boot") or "").split()
    if len(numbers) == 5 and numbers[4] == "1":
        return replace(
            result, verdict="warn", found="UEFI with Secure Boot", remedy="Switch Secure Boot off for the image."
        )
    return replace(result, found="UEFI, Secure Boot off" if numbers else "UEFI")


def hypervisor(dump: Dump) -> str | None:
    """Return the name of what this is a virtual machine or container of."""
    told = dump.command("virtualisation")
    if told and told != "none":
        return told.partition("\n")[0][:40]
    return "a hypervisor" if "hypervisor" in read_processor(dump).features else None


def virtual_machine(dump: Dump) -> Result:
    """Say whether it is one."""
    name = hypervisor(dump)
    model = " ".join(filter(None, (dump.line(f"/sys/class/dmi/id/{part}") for part in ("sys_vendor", "product_name"))))
    model = model or (dump.line("/proc/device-tree/model") or "").strip("\ufffd") or "a machine without a name"
    result = Result("system.virtual", "Machine", "ok", model, "a machine that can really sleep, for an expert")
    if name is None:
        return result
    found = f"{model}, in {name}"
    remedy = "Let it never sleep, or have its host wake it: a magic packet does not reach a virtual card."
    return replace(result, verdict="warn", found=found, remedy=remedy, limits=("expert",))


def kvm(dump: Dump) -> Result:
    """Say whether virtual machines can run on it; only building the image makes use of that."""
    needed = "nothing; tests of the image are quicker with it"
    features = read_processor(dump).features
    found = {"usable": "usable", "forbidden": "there; this user may not use it"}.get(dump.fact("kvm") or "")
    if found is None:
        found = "the processor can, the kernel has no /dev/kvm" if features & {"vmx", "svm"} else "none"
    return Result("system.kvm", "KVM", "ok", found, needed)
