"""Graphics processors and other accelerators."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.preflight.dump import Dump
from appliance.preflight.result import Result, amount, listing
from appliance.preflight.wanted import Wanted

_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x1a03": "ASPEED (console only)"}
_VIRTUAL = frozenset({"0x1234", "0x1af4", "0x15ad", "0x1b36", "0x80ee", "0x1a03", "0x1013"})
"""QEMU, virtio, VMware, Red Hat, VirtualBox, and the consoles of servers: they draw pictures and compute nothing."""


def check_graphics(dump: Dump, wanted: Wanted) -> Iterator[Result]:
    """Check what could compute besides the processor."""
    seen, computing = [], False
    for name in dump.names("/sys/bus/pci/devices"):
        folder = f"/sys/bus/pci/devices/{name}"
        vendor, device = dump.line(f"{folder}/vendor") or "?", dump.line(f"{folder}/device") or "?"
        driver = dump.link(f"{folder}/driver")
        memory = dump.number(f"{folder}/mem_info_vram_total")
        size = f", {amount(memory)}" if memory else ""
        ids = f"{vendor.removeprefix('0x')}:{device.removeprefix('0x')}"
        seen.append(f"{_VENDORS.get(vendor, 'unknown maker')} {ids} ({driver or 'no driver'}{size})")
        computing = computing or (vendor not in _VIRTUAL and driver is not None)
    nvidia = [line.strip() for line in (dump.command("nvidia") or "").split("\n") if line.strip()]
    seen += [f"{line} MiB" for line in nvidia]
    seen += [path.removeprefix("/dev/") for path in dump.facts("device ") if "dri" not in path]
    result = Result("gpu", "Graphics", "ok", listing(seen) or "none", "nothing: models run on the processor")
    wishes = [one.name for one in wanted.experts if one.on_gpu]
    if wishes:
        result = replace(result, needed=f"a GPU with a driver: gpu_layers is set for {', '.join(wishes)}")
        if not computing:
            remedy = "Install its driver and a llama.cpp that is built for it, or set gpu_layers = 0."
            yield replace(result, verdict="bad", remedy=remedy, unfit=("expert",))
            return
    yield result
    yield vision(dump)


def vision(dump: Dump) -> Result:
    """Check for something that takes detection or decoding off the processor."""
    found = [path.removeprefix("/dev/") for path in dump.facts("device ")]
    needed = "a GPU or an accelerator: a processor alone decodes and searches few cameras"
    result = Result("gpu.vision", "Accelerator for vision", "ok", listing(found), needed, about="vision")
    if not found:
        remedy = "Add one, or keep to a camera or two at a low rate."
        return replace(result, verdict="warn", found="none", remedy=remedy, limits=("vision",))
    return result
