"""`rouse hub` with a small CA, and accounts at a mosquitto of its own: `python -m tests.system.pairing.hub_main`."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from appliance import hub
from appliance.pairing.hub_ledger import Offices
from appliance.settings import load
from scripts.house.mosquitto import program
from scripts.house.processes import child
from tests.unit.pairing.offices import SmallAccounts, SmallAuthority


class MosquittoAccounts(SmallAccounts):
    """Accounts that mosquitto learns of at once."""

    def __init__(self, folder: Path, passwords: Path) -> None:
        super().__init__(folder)
        self.passwords = passwords
        self.pid = 0

    def add(self, node: str) -> str:
        password = super().add(node)
        self.tell()
        return password

    def remove(self, node: str) -> None:
        super().remove(node)
        self.tell()

    def tell(self) -> None:
        """Write all accounts, hashed, and have mosquitto read them."""
        with tempfile.NamedTemporaryFile("w", dir=self.passwords.parent, delete=False) as draft:
            draft.writelines(f"{user}:{password}\n" for user, password in {"rouse": "house", **self.all()}.items())
        subprocess.run(["mosquitto_passwd", "-U", draft.name], check=True, timeout=30)
        Path(draft.name).replace(self.passwords)
        if self.pid:
            os.kill(self.pid, signal.SIGHUP)


async def main(folder: Path) -> None:
    settings = load(folder, dict(os.environ), socket.gethostname()).settings
    port = int((settings.broker.url or "").rpartition(":")[2])
    accounts = MosquittoAccounts(folder, folder / "passwords")
    accounts.tell()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 0.0.0.0\nallow_anonymous false\npassword_file {accounts.passwords}\nuser root\n"
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with child([program() or "mosquitto", "-c", configuration], log=folder / "mosquitto.log", grace=5) as broker:
        accounts.pid = broker.pid
        offices = Offices(SmallAuthority(folder), accounts)
        await hub.run(settings, stop=stop, ready=lambda _: None, offices=offices)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(main(Path(sys.argv[1])))
