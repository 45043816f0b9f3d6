import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from appliance.security.layout import secret_file
from scripts.house.processes import free_port
from tests.unit.benchmark.conftest import ScriptedServer, says, tokens

GOLDEN = Path(__file__).parent / "guidellm" / "benchmarks.json"


async def start(*arguments: str, **variables: str) -> Process:
    command = [sys.executable, "-m", "appliance", "bench", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=kept | variables)


async def rouse_bench(*arguments: str, **variables: str) -> tuple[int | None, str, str]:
    process = await start(*arguments, **variables)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_measurement(server: ScriptedServer, tmp_path: Path) -> None:
    server.script = tokens(3, counted=3)
    levels = ("--concurrency", "1,2", "--prompt-tokens", "20,40", "--requests", "3", "--tokens", "3")
    code, out, err = await rouse_bench("--url", server.url, *levels, "--output", str(tmp_path), ROUSE_API_KEY="secret")
    assert code == 0, err
    assert "The server counted the tokens." in out
    assert "report.svg" in err
    assert server.headers[0]["Authorization"] == "Bearer secret"
    written = json.loads((tmp_path / "report.json").read_text())
    assert [level["completed"] for level in written["levels"]] == [3, 3, 3, 3]
    assert (tmp_path / "report.svg").read_text().startswith("<svg ")
    for name in ("report.json", "report.guidellm.json"):
        code, out, err = await rouse_bench("show", str(tmp_path / name))
        assert (code, "tokens/s" in out) == (0, True), err
        assert "secret" not in (tmp_path / name).read_text()


async def test_json_for_scripts_and_a_key_in_a_file(server: ScriptedServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("from-the-file\n")
    options = ("--api-key-file", str(key), "--json", "--requests", "2", "--concurrency", "1", "--warm-up", "0")
    code, out, err = await rouse_bench("--url", server.url, *options)
    assert code == 0, err
    assert json.loads(out)["levels"][0]["completed"] == 2
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer from-the-file"}


async def test_ctrl_c_reports_what_was_measured(server: ScriptedServer, tmp_path: Path) -> None:
    server.script = tokens(3, pause=0.01)
    levels = ("--concurrency", "1,2", "--duration", "600", "--json", "--output", str(tmp_path))
    process = await start("--url", server.url, *levels)
    async with asyncio.timeout(30):
        while len(server.asked) < 6:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    found = json.loads(out)
    assert found["interrupted"] is True
    assert found["levels"][0]["completed"] >= 2
    assert (tmp_path / "report.json").exists()


async def test_what_can_not_be_measured_is_one_line_and_code_1(server: ScriptedServer) -> None:
    server.script = says({"error": {"message": "Wrong key."}}, 401)
    code, out, err = await rouse_bench("--url", server.url)
    assert (code, out, err) == (1, "", "rouse: every request failed: HTTP 401: Wrong key.\n")
    code, out, err = await rouse_bench("--url", f"http://127.0.0.1:{free_port()}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "is not reachable" in err


async def test_wrong_usage_is_code_2(server: ScriptedServer, tmp_path: Path) -> None:
    wrong = (
        ("--concurrency", "1,x"), ("--concurrency", "0"), ("--prompt-tokens", ""), ("--tokens", "0"),
        ("--url", "ftp://x"), ("--api-key-file", str(tmp_path / "none")), ("--nonsense",), ("show",),
    )  # fmt: skip
    found = await asyncio.gather(*(rouse_bench(*(("--url", server.url) * (one[0] != "show")), *one) for one in wrong))
    assert [code for code, _, _ in found] == [2] * len(wrong)
    assert not server.asked


async def test_show_of_a_report_of_guidellm_and_of_none() -> None:
    code, out, _ = await rouse_bench("show", str(GOLDEN))
    assert (code, "GuideLLM 0.8.1" in out) == (0, True)
    code, out, _ = await rouse_bench("show", str(GOLDEN), "--json")
    assert (code, json.loads(out)["kind"]) == (0, "rouse-benchmark")
    code, out, err = await rouse_bench("show", __file__)
    assert (code, out, err.count("\n")) == (1, "", 1)


async def test_the_gateway_of_the_settings_by_default(server: ScriptedServer, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    (tmp_path / "rouse.toml").write_text(f'[gateway]\nport = {port}\n[paths]\nstate = "{tmp_path}"\n')
    key = secret_file(tmp_path, "gateway.key")
    key.parent.mkdir(parents=True)
    key.write_text("of-the-house")
    variables = {"ROUSE_CONFIG_DIR": str(tmp_path)}
    code, _, err = await rouse_bench("--requests", "1", "--concurrency", "1", **variables)
    assert code == 0, err
    assert server.headers[0]["Authorization"] == "Bearer of-the-house"
