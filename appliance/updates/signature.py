"""The publisher's signature, by GnuPG's gpgv and the keys that came with the image."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from appliance.updates.errors import SignatureError

KEYS = (Path("/etc/systemd/import-pubring.pgp"), Path("/usr/lib/systemd/import-pubring.pgp"))
"""systemd's places for them, the owner's first; `rouse image build --verify-key` fills the second."""
_SECONDS = 60


def verify(sums: Path, signature: Path, *, keys: Sequence[Path]) -> None:
    """Verify that a file was signed by one of the keys in the first file that is there.

    Raises:
        SignatureError: it was not, or there are no keys.
    """
    found = next((path for path in keys if path.is_file()), None)
    if found is None:
        raise SignatureError(
            "this machine has no keys to verify updates with: the image was built without --verify-key, "
            f"and there is no {keys[0]}"
        )
    # A name without a slash would be looked for in GnuPG's own folder.
    command = ["gpgv", "--keyring", str(found.resolve()), "--", str(signature), str(sums)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=_SECONDS)  # noqa: S603 - a fixed one
    except FileNotFoundError as error:
        raise SignatureError("gpgv is not installed, and without it no signature can be verified") from error
    except subprocess.TimeoutExpired as error:
        raise SignatureError(f"gpgv did not end within {_SECONDS} s") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[:300]
        raise SignatureError(
            f"the signature of {sums.name} is wrong, or by a key that this machine does not know: {said}"
        )
