"""A real mosquitto with passwords, on loopback."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.house.processes import child, tail


def program() -> str | None:
    """Return where mosquitto is; Debian keeps it out of a user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def mosquitto(
    folder: Path, *, port: int, passwords: Mapping[str, str], tls: tuple[Path, Path] | None = None
) -> AsyncIterator[None]:
    """Run mosquitto on a port of the loopback interface until the context ends.

    Args:
        folder: for its configuration and log.
        port: where it listens.
        passwords: by user.
        tls: certificate and key files (PEM); with them it speaks TLS only.
    """
    found = program()
    if found is None:
        raise FileNotFoundError("mosquitto is not installed: apt-get install mosquitto")
    folder.mkdir(parents=True, exist_ok=True)
    password_file = folder / "passwords"
    password_file.write_text("".join(f"{user}:{password}\n" for user, password in passwords.items()))
    password_file.chmod(0o600)
    hashing = await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", str(password_file))
    if await hashing.wait() != 0:
        raise OSError("mosquitto_passwd failed")
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {password_file}",
        "persistence false",
        "user root",
    ]
    if tls is not None:
        lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
    configuration = folder / "mosquitto.conf"
    configuration.write_text("\n".join(lines) + "\n")
    log = folder / "mosquitto.log"
    async with child([found, "-c", configuration], log=log, grace=5) as process:
        await _until_it_listens(process, port, log)
        yield


async def _until_it_listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(10):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise OSError(f"mosquitto ended: {tail(log)}")
