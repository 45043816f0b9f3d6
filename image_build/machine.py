"""A virtual machine in QEMU, from the tool root: serial consoles read with time-outs, QMP, and a power cut.

Commands are run in a root shell of systemd's debug shell on a serial port of its own. It is asked for on the kernel's
command line by the firmware's tables (SMBIOS type 11, `io.systemd.stub.kernel-cmdline-extra`, systemd-stub(7)), so the
image that is tested is the one that is published. Whoever owns a virtual machine may do that; it is not so on hardware,
nor with Secure Boot.
"""

import asyncio
import base64
import contextlib
import os
import re
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qemu.qmp import EventListener, ExecInterruptedError, QMPClient, QMPError

from image_build.errors import MachineError
from image_build.layout import Platform
from image_build.sandbox import Sandbox

_SHELL_PORT = "ttyS1"
_EMULATED = "max,avx=off,avx2=off,fma=off,f16c=off"
"""An emulated processor of 2010: llama.cpp's code for AVX2 takes ten times as long as that for SSE4.2 (11.4 and 1.0 s
for a token of a model of 135 M parameters), because each product of two fractions is a call."""
_PROMPT = r"(?:root@[^\n]*|sh-[0-9.]+)# "
_ESCAPE = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]")
_WAIT_UP = """
until state=$(systemctl is-system-running --wait 2> /dev/null) || [ "$state" = degraded ]; do sleep 1; done; echo $state
"""
_DOOR = "door.py"
# QEMU runs it for each connection from the machine, with the connection as standard input and output.
_DOOR_PROGRAM = """
import os, socket, sys, threading
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
    def answer():
        while data := peer.recv(65536):
            while data:
                data = data[os.write(1, data):]
        os._exit(0)
    threading.Thread(target=answer, daemon=True).start()
    while data := os.read(0, 65536):
        peer.sendall(data)
"""
_TAIL = 3000
"""Characters of a console that an error shows."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network card: QEMU's user network with ports on loopback, or a tap device.

    Attributes:
        mac: hardware address.
        forward: ports on loopback and the machine's ports that they lead to.
        reaches: addresses of its network, such as `10.0.2.100:80`, and the ports on loopback that they lead to; it
            reaches nothing else.
        tap: name of a tap device; then there are no forwarded ports.
    """

    mac: str = "52:54:00:00:00:01"
    forward: Mapping[int, int] = field(default_factory=dict)
    reaches: Mapping[str, int] = field(default_factory=dict)
    tap: str | None = None

    def options(self) -> list[str]:
        """Return QEMU's options for the card."""
        if self.tap is not None:
            backend = f"tap,id=net0,ifname={self.tap},script=no,downscript=no"
        else:
            ports = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in self.forward.items())
            doors = "".join(
                f",guestfwd=tcp:{address}-cmd:/usr/bin/python3 /run/machine/{_DOOR} {port}"
                for address, port in self.reaches.items()
            )
            backend = f"user,id=net0,restrict=on{ports}{doors}"
        return ["-netdev", backend, "-device", f"virtio-net-pci,netdev=net0,mac={self.mac}"]


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a virtual machine has.

    Attributes:
        memory: MiB.
        processors: how many.
        kvm: use the machine's own processor; only where a trial boot has worked.
        network: its card, if any.
        command_line: added to the kernel's command line.
        credentials: of systemd, by SMBIOS.
    """

    memory: int = 1536
    processors: int = 2
    kvm: bool = False
    network: Network | None = None
    command_line: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict)


class Console:
    """What a serial port says, kept in a file and waited for."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._text = ""
        self._from = 0
        self._changed = asyncio.Condition()
        self._writer: asyncio.StreamWriter | None = None
        self._closed = False

    @property
    def text(self) -> str:
        """All that was said."""
        return self._text

    def tail(self) -> str:
        """Return the last that was said, without what moves the cursor."""
        return _ESCAPE.sub("", self._text[-_TAIL:]).replace("\r", "")

    async def run(self, socket: Path) -> None:
        """Read until the port is closed."""
        reader, self._writer = await asyncio.open_unix_connection(socket)
        try:
            with self._log.open("ab", buffering=0) as log:
                while data := await reader.read(4096):
                    log.write(data)
                    await self._add(data.decode("utf-8", "replace"))
        finally:
            self._closed = True
            self._writer.close()
            await self._add("")

    async def _add(self, text: str) -> None:
        async with self._changed:
            self._text += text
            self._changed.notify_all()

    async def expect(self, pattern: str, timeout: float) -> re.Match[str]:  # noqa: ASYNC109 - says what was missing
        """Wait until the port says something new that fits, and return it.

        Raises:
            MachineError: it does not within this many seconds, or the machine ended.
        """
        wanted = re.compile(pattern, re.MULTILINE)

        def found() -> re.Match[str] | None:
            return wanted.search(self._text, self._from)

        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: found() is not None or self._closed)
        except TimeoutError:
            raise MachineError(
                f"{pattern!r} was not said within {timeout:.0f} s; the last of it:\n{self.tail()}"
            ) from None
        match = found()
        if match is None:
            raise MachineError(f"the machine ended before {pattern!r} was said; the last of it:\n{self.tail()}")
        self._from = match.end()
        return match

    async def send(self, text: str) -> None:
        """Type a text."""
        if self._writer is None or self._closed:
            raise MachineError("the machine's serial port is closed")
        self._writer.write(text.encode())
        await self._writer.drain()


class Machine:
    """A running virtual machine; leaving it ends it.

    Args:
        disk: image that it boots and writes to.
        folder: for its sockets, firmware variables and logs; one machine each.
        tools: root with QEMU.
        platform: architecture.
        hardware: what it has.
        within: what the command line begins with, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        disk: Path,
        *,
        folder: Path,
        tools: Sandbox,
        platform: Platform,
        hardware: Hardware,
        within: Sequence[str] = (),
    ) -> None:
        self.disk = disk
        self.folder = folder
        self.hardware = hardware
        self._within = tuple(within)
        self._tools = tools
        self._platform = platform
        self.console = Console(folder / "console.log")
        self.shell = Console(folder / "shell.log")
        self.monitor = QMPClient("machine")
        self._process: asyncio.subprocess.Process | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("console", "shell", "monitor"):
            (self.folder / name).unlink(missing_ok=True)
        variables = self.folder / "variables.fd"
        if not variables.exists():
            shutil.copyfile(self._tools.root / self._platform.firmware[1].lstrip("/"), variables)
        (self.folder / "pid").unlink(missing_ok=True)
        (self.folder / _DOOR).write_text(_DOOR_PROGRAM)
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._within, *self._command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            await self._connect(self._process)
        except BaseException:
            await self.cut_power()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut_power()

    async def cut_power(self) -> None:
        """End QEMU at once (SIGKILL), as a power cut does; nothing more is written."""
        if self._process is not None and self._process.returncode is None:
            try:
                # Its sandbox ends after it; ended first, it would leave QEMU behind with its lock on the disk.
                os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self.monitor.disconnect()
        await self._stack.aclose()

    async def wait_off(self, timeout: float) -> None:  # noqa: ASYNC109 - says what was missing
        """Wait until the machine has switched itself off.

        Raises:
            MachineError: it is still on after this many seconds.
        """
        if self._process is None:
            raise MachineError("the machine was never on")
        try:
            await asyncio.wait_for(self._process.wait(), timeout)
        except TimeoutError:
            raise MachineError(f"the machine is still on after {timeout:.0f} s:\n{self.console.tail()}") from None
        await self.cut_power()

    async def wait_shell(self, timeout: float) -> None:  # noqa: ASYNC109 - says what was missing
        """Wait until commands can be run.

        Raises:
            MachineError: no shell answers within this many seconds.
        """
        # Nothing is typed before there is a prompt: the firmware listens on every serial port.
        await self.shell.expect(_PROMPT, timeout)
        # A shell without line editing, prompts and colours says only what the commands say.
        await self.shell.send("stty -echo columns 500; exec env PS1= PS2= TERM=dumb sh\n")
        await asyncio.sleep(1)
        await self.run("true")

    async def wait_up(self, timeout: float) -> str:  # noqa: ASYNC109 - says what was missing
        """Wait until systemd has started all that it should; return "running", or "degraded" if something failed.

        Raises:
            MachineError: it is not so within this many seconds.
        """
        await self.wait_shell(timeout)
        return await self.wait_started(timeout)

    async def wait_started(self, timeout: float) -> str:  # noqa: ASYNC109 - says what was missing
        """Wait like `wait_up`, with a shell that is there already: it is so before the system bus is.

        Raises:
            MachineError: it is not so within this many seconds.
        """
        return (await self.run(_WAIT_UP, timeout)).strip()

    async def run(self, command: str, timeout: float = 60, *, check: bool = True) -> str:  # noqa: ASYNC109 - see above
        """Run a shell command as root in the machine and return what it writes.

        Raises:
            MachineError: it fails (unless `check` is false) or takes longer than this many seconds.
        """
        token = secrets.token_hex(6)
        # The output is bracketed by marks that the command line itself does not contain.
        await self.shell.send(f"echo b''{token}; {{ {command}\n}} 2>&1 </dev/null; echo; echo e''{token}-$?-\n")
        await self.shell.expect(f"b{token}\r?\n", timeout)
        start = self.shell._from  # noqa: SLF001 - the two are one thing
        end = await self.shell.expect(rf"\r?\n?e{token}-(\d+)-", timeout)
        output = self.shell.text[start : end.start()].replace("\r\n", "\n")
        if check and end[1] != "0":
            raise MachineError(f"{command!r} ended with {end[1]} in the machine:\n{output[-_TAIL:]}")
        return output

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a command of QEMU's monitor (QMP).

        Raises:
            MachineError: it is refused.
        """
        try:
            return await self.monitor.execute(command, dict(arguments) if arguments else None)
        except (QMPError, ExecInterruptedError) as error:
            raise MachineError(f"QEMU refuses {command}: {error}") from error

    def events(self, *names: str) -> AbstractContextManager[EventListener]:
        """Listen to QEMU's events of these names, such as SUSPEND and WAKEUP, inside of a `with`."""
        return self.monitor.listener(names)

    async def _connect(self, process: asyncio.subprocess.Process) -> None:
        async with _deadline(30, self):
            while not all((self.folder / name).exists() for name in ("console", "shell", "monitor", "pid")):
                if process.returncode is not None:
                    raise MachineError(f"QEMU does not start: {(self.folder / 'qemu.log').read_text()[-_TAIL:]}")
                await asyncio.sleep(0.05)
            for name, console in (("console", self.console), ("shell", self.shell)):
                task = asyncio.create_task(console.run(self.folder / name), name=f"machine-{name}")
                self._stack.push_async_callback(_ended, task)
            try:
                await self.monitor.connect(str(self.folder / "monitor"))
            except QMPError as error:
                raise MachineError(f"QEMU does not start: {(self.folder / 'qemu.log').read_text()[-_TAIL:]}") from error
            await self.execute("cont")

    def _command(self) -> list[str]:
        hardware, platform = self.hardware, self._platform
        arm = platform.architecture == "arm64"
        kind = "virt" if arm else "q35,smm=off"
        emulated = ["-accel", "tcg,thread=multi", "-cpu", "max" if arm else _EMULATED]
        processor = ["-accel", "kvm", "-cpu", "host"] if hardware.kvm else emulated
        line = [
            platform.qemu,
            "-machine",
            kind,
            *processor,
            "-smp",
            str(hardware.processors),
            "-m",
            str(hardware.memory),
        ]
        line += ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-pidfile", "/run/machine/pid"]
        line += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={platform.firmware[0]}"]
        line += ["-drive", "if=pflash,format=raw,unit=1,file=/run/machine/variables.fd"]
        line += ["-drive", "if=none,id=disk,format=raw,discard=unmap,file=/run/disk"]
        line += ["-device", "virtio-blk-pci,drive=disk,bootindex=1", "-device", "virtio-rng-pci"]
        for name in ("console", "shell"):
            line += ["-chardev", f"socket,id={name},path=/run/machine/{name},server=on,wait=off"]
            line += ["-serial", f"chardev:{name}"]
        line += ["-chardev", "socket,id=monitor,path=/run/machine/monitor,server=on,wait=off"]
        line += ["-mon", "chardev=monitor,mode=control"]
        extra = f"systemd.debug_shell={_SHELL_PORT} {hardware.command_line}".strip()
        line += ["-smbios", f"type=11,value=io.systemd.stub.kernel-cmdline-extra={extra}"]
        for name, value in hardware.credentials.items():
            encoded = base64.b64encode(value.encode()).decode()
            line += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={encoded}"]
        line += hardware.network.options() if hardware.network is not None else ["-nic", "none"]
        return self._tools.command(
            line,
            binds={self.folder: "/run/machine", self.disk: "/run/disk"},
            devices=hardware.kvm or (hardware.network is not None and hardware.network.tap is not None),
            network=True,
            own_processes=False,
        )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, OSError):
        await task


@asynccontextmanager
async def _deadline(seconds: float, machine: Machine) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise MachineError(
            f"the machine is not there after {seconds:.0f} s; its console's last lines:\n{machine.console.tail()}"
        ) from None
