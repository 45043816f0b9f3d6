"""Runs programs inside a root file system with bubblewrap: they see of the machine only what is named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image_build.process import Runner

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A root file system that programs are run in.

    Attributes:
        root: the folder that they see as `/`.
        runner: what runs them.
        writable: whether they may write to it; else only to what is bound.
    """

    root: Path
    runner: Runner
    writable: bool = False

    def command(
        self,
        command: Sequence[str],
        *,
        binds: Mapping[Path, str] | None = None,
        readable: Mapping[Path, str] | None = None,
        devices: bool = False,
        network: bool = False,
        own_processes: bool = True,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return the command line that runs a program in the root.

        Args:
            command: the program and its arguments, as the root has them.
            binds: folders and files of the machine that it may write, and where it sees them.
            readable: those that it may only read.
            devices: let it see the machine's devices rather than null, zero and the like.
            network: leave it the machine's network.
            own_processes: let it see only its own processes; else the numbers it writes down are the machine's.
            cwd: its working directory.
            env: its environment, besides PATH, HOME, locale and time zone.
        """
        line = ["bwrap", "--die-with-parent", "--unshare-ipc", "--unshare-uts", "--cap-add", "ALL"]
        line += ["--unshare-pid"] if own_processes else []
        line += [] if network else ["--unshare-net"]
        line += ["--bind" if self.writable else "--ro-bind", str(self.root), "/"]
        line += ["--dev-bind", "/dev", "/dev"] if devices else ["--dev", "/dev"]
        line += ["--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108 - it is the root's own
        for source, target in (readable or {}).items():
            line += ["--ro-bind", str(source), target]
        for source, target in (binds or {}).items():
            line += ["--bind", str(source), target]
        line += ["--chdir", cwd, "--clearenv"]
        for name, value in {**_ENVIRONMENT, **(env or {})}.items():
            line += ["--setenv", name, value]
        return [*line, "--", *command]

    def run(
        self,
        command: Sequence[str],
        *,
        binds: Mapping[Path, str] | None = None,
        readable: Mapping[Path, str] | None = None,
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> None:
        """Run a program in the root, without network.

        Raises:
            StepError: it fails.
        """
        self.runner.run(self.command(command, binds=binds, readable=readable, cwd=cwd, env=env), stdin=stdin)

    def output(self, command: Sequence[str], *, readable: Mapping[Path, str] | None = None) -> str:
        """Run a program in the root and return its standard output.

        Raises:
            StepError: it fails.
        """
        return self.runner.output(self.command(command, readable=readable))
