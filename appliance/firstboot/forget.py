"""Moves the secrets from the file on the FAT partition to the machine."""

import json
from pathlib import Path

from appliance.firstboot import files
from appliance.firstboot.apply import Machine
from appliance.firstboot.candidate import find_file, read_candidate
from appliance.firstboot.kept_secrets import read_kept, split
from appliance.firstboot.mount import writable


def forget_secrets(folder: Path, machine: Machine) -> tuple[str, ...]:
    """Put a placeholder for each secret of the file, and return the keys.

    The machine has them before the file loses them. Flash memory may keep the old content in places that no program
    reaches: who must be sure changes the secret, or destroys the stick.

    Raises:
        RefusedFileError: the file is not good; its secrets could be lost.
        ApplyError: the machine or the partition can't be written.
    """
    path = find_file(folder)
    if path is None:
        return ()
    read_candidate(path, config_dir=machine.config_dir, hostname=machine.hostname, kept=machine.kept)
    rest, held = split(path.read_bytes())
    if held:
        kept = {**read_kept(machine.kept), **held}
        files.write(machine.kept, json.dumps(kept, indent=2).encode(), mode=0o600)
        with writable(folder):
            files.write(path, rest, mode=path.stat().st_mode & 0o777)
    return tuple(sorted(held))
