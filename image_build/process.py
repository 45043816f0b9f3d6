"""Runs the programs of the build: what they say goes to one log, and a failure is one clear error."""

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from image_build.errors import StepError

_LAST_LINES = 15

type OnLine = Callable[[str], None]
type OnText = Callable[[str], str]


class Runner:
    """Runs programs, one after another.

    Args:
        log: file that everything said is added to.
        on_line: gets each line, for whoever shows progress.
        environment: the programs' whole environment, unless a call adds to it.
    """

    def __init__(self, log: Path, *, on_line: OnLine, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._on_line = on_line
        self._environment = dict(os.environ if environment is None else environment)

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        without_env: str | None = None,
        stdin: str | None = None,
        shown: OnText = str,
    ) -> None:
        """Run a program to its end.

        Args:
            command: the program and its arguments.
            cwd: its working directory.
            env: its environment, besides the runner's.
            without_env: what variables of the runner's begin with that it does not get.
            stdin: what it reads.
            shown: turns a line of it into what people are shown; nothing where that is empty.

        Raises:
            StepError: it can't be started or fails.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with self.log.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            with self._started(command, cwd, self._given(env, without_env), stdin=stdin is not None) as process:
                feeder = _fed(process.stdin, stdin)
                for line in process.stdout or ():
                    log.write(line)
                    log.flush()
                    if said := shown(line.rstrip()):
                        last.append(said)
                        self._on_line(said)
                code = process.wait()
                if feeder is not None:
                    feeder.join()
            log.write(f"# exit code {code} after {time.monotonic() - started:.1f} s\n")
        if code != 0:
            said = "\n".join(f"  {line}" for line in last)
            raise StepError(
                f"{_name(command)} failed with exit code {code}; all is in {self.log}; its last lines:\n{said}"
            )

    def output(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
        """Run a program and return what it wrote to standard output.

        Raises:
            StepError: it can't be started or fails.
        """
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, env={**self._environment, **(env or {})}
            )
        except OSError as error:
            raise StepError(f"{command[0]} can't be started: {error}") from error
        if done.returncode != 0:
            raise StepError(f"{_name(command)} failed with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def _given(self, env: Mapping[str, str] | None, without: str | None) -> dict[str, str]:
        kept = {name: value for name, value in self._environment.items() if not (without and name.startswith(without))}
        return {**kept, **(env or {})}

    def _started(
        self, command: Sequence[str], cwd: Path | None, env: Mapping[str, str], *, stdin: bool
    ) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise StepError(f"{command[0]} can't be started: {error}") from error


def _fed(pipe: IO[str] | None, text: str | None) -> threading.Thread | None:
    """Write the text in a thread, as a program may answer before it has read everything."""
    if pipe is None or text is None:
        return None

    def feed() -> None:
        with pipe:
            pipe.write(text)

    thread = threading.Thread(target=feed, name="stdin", daemon=True)
    thread.start()
    return thread


def _name(command: Sequence[str]) -> str:
    """Return the program's name; in a root it comes after `--`."""
    if "--" in command:
        command = command[command.index("--") + 1 :]
    return Path(command[0]).name
