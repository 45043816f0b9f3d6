"""A publisher with a real key: versions whose files are small, and a list of checksums that is signed."""

import hashlib
import shutil
import subprocess
import uuid
from pathlib import Path

from appliance.updates.image import architecture
from appliance.updates.slots import Slots

SLOTS = Slots(root_size=1 << 22, verity_size=1 << 16, versions=frozenset({"1.0"}), parts=frozenset())


def missing_programs() -> list[str]:
    return [name for name in ("gpg", "gpgv") if shutil.which(name) is None]


class Publisher:
    """Signs with a key of its own; `keys` is what machines know it by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "published"
        self.folder.mkdir(parents=True)
        # GnuPG's sockets need a short path.
        self._home = folder / "gpg"
        self._home.mkdir(mode=0o700)
        self.keys = folder / "keys.pgp"
        self._gpg("--passphrase", "", "--quick-generate-key", "tests@example.org", "ed25519", "sign", "0")
        self._gpg("--yes", "--output", str(self.keys), "--export")

    def publish(self, *versions: str, size: int = 300_000) -> None:
        """Publish complete versions; what was there stays."""
        for version in versions:
            for name, content in files_of(version, size).items():
                (self.folder / name).write_bytes(content)
        self.sign()

    def sign(self) -> None:
        lines = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(self.folder.iterdir())
            if not path.name.startswith("SHA256SUMS")
        ]
        sums = self.folder / "SHA256SUMS"
        sums.write_text("".join(lines))
        self._gpg("--yes", "--output", f"{sums}.gpg", "--detach-sign", str(sums))

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False)

    def _gpg(self, *arguments: str) -> None:
        command = ["gpg", "--batch", "--no-tty", "--quiet", "--homedir", str(self._home), *arguments]
        subprocess.run(command, check=True, capture_output=True)


def part(version: str, kind: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind} {version}"))


def files_of(version: str, size: int) -> dict[str, bytes]:
    stem = f"rouse_{version}_{architecture()}"
    content = hashlib.shake_256(version.encode()).digest(size)
    return {
        f"{stem}_{part(version, 'root')}.root": content,
        f"{stem}_{part(version, 'verity')}.verity": content[: size // 100],
        f"{stem}.efi": b"MZ" + content[: size // 10],
        f"{stem}.json": b"{}",
    }
