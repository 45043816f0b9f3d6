"""llama.cpp's build: which processor it is for is found out at run time."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.experts.llama import devices
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.llama.identity import fingerprint
from appliance.experts.settings import EngineSettings

AVX = re.compile(r"%[yz]mm\d|\tv[a-z0-9]+ .*%xmm")
DECODE = """
import sys
from pathlib import Path
from appliance.experts.backend import Run
from appliance.experts.llama import devices
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.sampling import Sampling
from appliance.experts.settings import EngineSettings

backend = LlamaBackend(Path(sys.argv[1]), EngineSettings(context_tokens=256, slots=1, threads=1))
prompt = "<|im_start|>user\\nWhat is the capital of France?<|im_end|>\\n<|im_start|>assistant\\n"
tokens, position, text = backend.tokenize(prompt, special=True), 0, b""
sampler = backend.sampler(Sampling(temperature=0))
while b"." not in text and position < 60:
    backend.decode([Run(0, position, tokens, outputs=1)])
    position += len(tokens)
    tokens = [sampler.sample(0)]
    text += backend.piece(tokens[0])
print(devices.cpu_variant(), text.decode())
"""
only_on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 is built with variants")


@only_on_x86
def test_the_cpu_backend_is_a_variant_that_was_chosen_for_this_processor() -> None:
    variant = devices.cpu_variant()
    assert variant in devices.cpu_variants()
    assert {"x64", "sse42", "haswell"} <= set(devices.cpu_variants())
    assert variant != "sapphirerapids"
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    assert ("AVX2" in devices.cpu_features()) == ("avx2" in flags)
    assert [device.kind for device in devices.devices()][-1] == "cpu"


@only_on_x86
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) is not installed")
@pytest.mark.parametrize("name", ["llama", "ggml", "ggml-base", "ggml-rpc", "mtmd", "ggml-cpu-x64"])
def test_what_every_processor_loads_has_no_avx(name: str) -> None:
    library = devices.library_folder() / f"lib{name}.so"
    assert not _avx_lines(library)


@only_on_x86
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) is not installed")
def test_avx_would_be_found() -> None:
    assert len(_avx_lines(devices.library_folder() / "libggml-cpu-haswell.so")) > 1000


def _avx_lines(library: Path) -> list[str]:
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(library)], check=True, capture_output=True, text=True
    ).stdout
    assert "<ggml" in listing or "<llama" in listing or "<mtmd" in listing
    return [line for line in listing.splitlines() if AVX.search(line)]


@only_on_x86
@pytest.mark.model
def test_the_variant_for_the_oldest_processors_answers_alone(model: Path, tmp_path: Path) -> None:
    for library in devices.library_folder().glob("*.so*"):
        if not library.name.startswith("libggml-cpu-") or library.name == "libggml-cpu-x64.so":
            (tmp_path / library.name).symlink_to(library)
    # What finds a variant takes files alone, not links.
    (tmp_path / "libggml-cpu-x64.so").unlink()
    shutil.copy(devices.library_folder() / "libggml-cpu-x64.so", tmp_path)
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(tmp_path), "GOMP_SPINCOUNT": "1000"}
    ended = subprocess.run(
        [sys.executable, "-c", DECODE, str(model)], check=False, capture_output=True, text=True, env=environment
    )
    assert ended.stdout.strip() == "x64 The capital of France is Paris.", ended.stderr


@pytest.mark.model
def test_layers_for_a_gpu_that_is_not_there_are_a_warning(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not devices.has_gpu()
    LlamaBackend(model, EngineSettings(context_tokens=64, slots=1, threads=1, gpu_layers=-1)).close()
    assert "gpu_layers is -1, but llama.cpp found no GPU" in caplog.text


def test_a_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    content = bytearray(os.urandom(5 << 20))
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    first = fingerprint(path)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert fingerprint(path) == first
    for change in (0, 1 << 19, len(content) * 5 // 17, len(content) - 1):
        changed = content.copy()
        changed[change] ^= 1
        path.write_bytes(changed)
        assert fingerprint(path) != first
    path.write_bytes(content + b"\0")
    assert fingerprint(path) != first
    for small in (b"", b"GGUF"):
        path.write_bytes(small)
        assert len(fingerprint(path)) == 32
    with pytest.raises(FileNotFoundError):
        fingerprint(tmp_path / "none")
