"""The processor: which of llama.cpp's variants will run on it, and how many cores it has.

The variants, their features and their order are those of llama.cpp as llama-cpp-python 0.3.36 brings it along
(ggml/src/CMakeLists.txt, ggml/src/ggml-cpu/arch/x86/cpu-feats.cpp: the features make a score, and the highest wins).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.preflight.dump import Dump
from appliance.preflight.result import Result
from appliance.preflight.wanted import Wanted
from appliance.settings.section import Role

_AVX512 = frozenset({"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"})
_SSE42, _AVX = frozenset({"sse4_2"}), frozenset({"sse4_2", "avx"})
_FMA = _AVX | {"f16c", "fma"}
_HASWELL = _FMA | {"avx2", "bmi2"}
_SKYLAKE = _HASWELL | _AVX512
_ICELAKE = _SKYLAKE | {"avx512vbmi", "avx512_vnni"}
_X86_VARIANTS = (
    # Best first, by ggml's scores. sapphirerapids is missing because experts never take it (appliance/experts/llama).
    ("zen4", _ICELAKE | {"avx512_bf16"}),
    ("cooperlake", _SKYLAKE | {"avx512_vnni", "avx512_bf16"}),
    ("icelake", _ICELAKE),
    ("cascadelake", _SKYLAKE | {"avx512_vnni"}),
    ("cannonlake", _SKYLAKE | {"avx512vbmi"}),
    ("skylakex", _SKYLAKE),
    ("alderlake", _HASWELL | {"avx_vnni"}),
    ("haswell", _HASWELL),
    ("piledriver", _FMA),
    ("ivybridge", _AVX | {"f16c"}),
    ("sandybridge", _AVX),
    ("sse42", _SSE42),
    ("x64", frozenset[str]()),
)
_SHOWN = {
    "ssse3": "SSSE3",
    "sse4_1": "SSE4.1",
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "f16c": "F16C",
    "fma": "FMA",
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "asimd": "NEON",
    "asimddp": "dot products",
    "i8mm": "int8 matrices",
    "sve": "SVE",
}
_WORKING: tuple[Role, ...] = ("expert", "voice")


@dataclass(frozen=True, slots=True)
class Processor:
    """What the kernel says of it."""

    architecture: str
    model: str
    features: frozenset[str]
    cores: int | None
    """Physical ones where the kernel tells them apart."""
    threads: int | None

    @property
    def variant(self) -> str | None:
        """The best build of llama.cpp's CPU backend for it; None where there is one build only."""
        if self.architecture != "x86_64" or not self.features:
            return None
        return next(name for name, needed in _X86_VARIANTS if needed <= self.features)


def read_processor(dump: Dump) -> Processor:
    """Read what a dump has of the processor."""
    fields: dict[str, str] = {}
    for line in (dump.file("/proc/cpuinfo") or "").split("\n"):
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip().casefold(), value.strip())
    folder = "/sys/devices/system/cpu"
    cpus = [name for name in dump.names(folder) if re.fullmatch("cpu[0-9]+", name)]
    siblings = {
        dump.line(f"{folder}/{cpu}/topology/core_cpus_list")
        or dump.line(f"{folder}/{cpu}/topology/thread_siblings_list")
        for cpu in cpus
    } - {None}
    return Processor(
        architecture=dump.command("machine") or "unknown",
        model=fields.get("model name") or dump.line("/proc/device-tree/model") or fields.get("hardware") or "unknown",
        features=frozenset((fields.get("flags") or fields.get("features") or "").split()),
        cores=len(siblings) or None,
        threads=count(dump.line(f"{folder}/online")),
    )


def count(ranges: str | None) -> int | None:
    """Count what a list such as `0-3,6` names."""
    total = 0
    for part in (ranges or "").split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part.strip())
        if match is None:
            return None
        total += max(0, int(match[2] or match[1]) - int(match[1]) + 1)
    return total


def check_processor(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check instructions and cores."""
    processor = read_processor(dump)
    yield instructions(processor)
    if processor.architecture == "x86_64":
        yield vision(processor)
    yield cores(processor)


def instructions(processor: Processor) -> Result:
    """Say which build of llama.cpp will run, and how well."""
    known = [shown for flag, shown in _SHOWN.items() if flag in processor.features]
    found = f"{processor.model}, {processor.architecture}: {' '.join(known) or 'no vector extensions'}"
    title, name = "Processor", "processor.instructions"
    if processor.architecture not in {"x86_64", "aarch64"}:
        roles: tuple[Role, ...] = ("hub", "expert", "voice", "vision")
        needed = "x86_64 or aarch64: there are no packages for other architectures"
        remedy = "Install a 64-bit system if the processor can run one; otherwise use another machine."
        return Result(name, title, "bad", found, needed, remedy, unfit=roles)
    if not processor.features:
        return Result(name, title, "unknown", f"{processor.model}: the kernel tells no features")
    if processor.architecture == "aarch64":
        if "asimddp" not in processor.features:
            needed = "dot products (ARMv8.2), which llama.cpp's fast paths for quantised models use"
            return Result(name, title, "warn", found, needed, "Choose a small model.", limits=_WORKING)
        return Result(name, title, "ok", f"{found}; llama.cpp is built for it")
    variant = processor.variant
    found = f"{found}; llama.cpp runs as {variant}"
    if variant in {"x64", "sse42", "sandybridge", "ivybridge", "piledriver"}:
        needed = "AVX2 and FMA: with SSE2 alone a step of llama.cpp took three to five times as long"
        remedy = "Choose a small model: rouse model advise."
        return Result(name, title, "warn", found, needed, remedy, limits=_WORKING)
    return Result(name, title, "ok", found)


def vision(processor: Processor) -> Result:
    """Say whether Frigate runs on it."""
    needed = "AVX and AVX2, as Frigate's documentation asks for"
    result = Result("processor.vision", "Processor for vision", "ok", "AVX and AVX2", needed, about="vision")
    if not processor.features:
        return replace(result, verdict="unknown", found="the kernel tells no features")
    missing = [_SHOWN[flag] for flag in ("avx", "avx2") if flag not in processor.features]
    if missing:
        remedy = "Give the role vision to another machine."
        found = f"no {' and no '.join(missing)}"
        return replace(result, verdict="bad", found=found, remedy=remedy, unfit=("vision",))
    return result


def cores(processor: Processor) -> Result:
    """Say whether there are enough cores for anything."""
    number = processor.cores or processor.threads
    title, name = "Cores", "processor.cores"
    if number is None:
        return Result(name, title, "unknown", "the kernel does not tell how many cores there are")
    threads = f", {processor.threads} threads" if processor.threads not in {None, number} else ""
    found = f"{number} core{'s' if number != 1 else ''}{threads}"
    needed = "2 cores: an expert or speech takes one for itself while it works"
    if number < 2:
        remedy = "Give the machine one role only, and a small model."
        return Result(name, title, "warn", found, needed, remedy, limits=("hub", "vision", *_WORKING))
    if number < 4:
        more = "4 cores for vision, where no accelerator does its work"
        return Result(name, title, "ok", found, f"{needed}; {more}", limits=("vision",))
    return Result(name, title, "ok", found, needed)
