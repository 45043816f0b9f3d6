"""Programs that stand in for what can't be here: a management controller, and a user's script."""

from pathlib import Path

PASSWORD = "correct horse"

IPMITOOL = """#!/bin/sh
# Plays ipmitool with the controller of a machine whose power is in the file `power`.
here=$(dirname "$0")
echo "$@" >> "$here/commands"
tr '\\0' '\\n' < /proc/$$/environ | sort > "$here/environment"
[ "$IPMITOOL_PASSWORD" = "correct horse" ] || {
  echo "Error: Unable to establish IPMI v2 / RMCP+ session with password $IPMITOOL_PASSWORD"; exit 1; }
for action; do :; done
case $action in
  status) echo "Chassis Power is $(cat "$here/power")" ;;
  on) echo on > "$here/power"; echo "Chassis Power Control: Up/On" ;;
  cycle) echo on > "$here/power"; echo "Chassis Power Control: Cycle" ;;
  *) exit 1 ;;
esac
"""


class Controller:
    """A folder with a played ipmitool, to be put on the PATH."""

    def __init__(self, folder: Path, power: str = "off") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "ipmitool"
        program.write_text(IPMITOOL)
        program.chmod(0o755)
        (folder / "power").write_text(f"{power}\n")
        self.password_file = folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self.password_file.chmod(0o600)

    @property
    def path(self) -> str:
        return f"{self.folder}:/usr/bin:/bin"

    def commands(self) -> list[str]:
        file = self.folder / "commands"
        return file.read_text().splitlines() if file.exists() else []

    def actions(self) -> list[str]:
        return [command.rpartition(" ")[2] for command in self.commands()]

    def environment(self) -> set[str]:
        return set((self.folder / "environment").read_text().splitlines())


def program(file: Path, *lines: str) -> Path:
    """Write a shell script of the user's."""
    file.write_text("\n".join(("#!/bin/sh", *lines, "")))
    file.chmod(0o755)
    return file
