"""The connection to the machine's system bus, which mends itself.

A machine without D-Bus is no error: calls raise NoSystemBusError, and the connection is tried again now and then.
Specification: https://dbus.freedesktop.org/doc/dbus-specification.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dbus_next.constants import MessageType
from dbus_next.errors import AuthError
from dbus_next.message import Message

from appliance.node.dbus.errors import (
    NoSuchUnitError,
    NoSystemBusError,
    NotAllowedError,
    ServiceCallError,
    SystemBusError,
)
from appliance.node.dbus.socket import BusSocket

_log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
ADDRESS_VARIABLE = "DBUS_SYSTEM_BUS_ADDRESS"
FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 30.0
CALL_SECONDS = 25.0
"""libdbus's own default time for a reply."""

BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
_REFUSALS = frozenset(
    {
        "org.freedesktop.DBus.Error.AccessDenied",
        "org.freedesktop.DBus.Error.AuthFailed",
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
        "org.freedesktop.PolicyKit1.Error.NotAuthorized",
    }
)


@dataclass(frozen=True, slots=True)
class Remote:
    """An interface of an object of a service."""

    service: str
    path: str
    interface: str


type SignalHandler = Callable[[Sequence[Any]], None]
type Appeared = Callable[[], Awaitable[None]]


class SystemBus:
    """The system bus as an async context manager that connects in the background."""

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        """Take the bus's address; listeners are added before it is entered."""
        self._address = address
        self._socket: BusSocket | None = None
        self._signals: dict[tuple[str, str, str, str], list[SignalHandler]] = {}
        self._appeared: dict[str, list[Appeared]] = {}
        self._owners: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._callbacks: set[asyncio.Task[None]] = set()
        self._reason = ""
        self._tried = asyncio.Event()
        """Set when the first attempt to connect has ended, one way or the other."""

    @property
    def connected(self) -> bool:
        """Whether the bus is reachable at this moment."""
        return self._socket is not None

    def listen(self, remote: Remote, signal: str, handler: SignalHandler) -> None:
        """Call `handler` with the arguments of each such signal that the service itself sends."""
        key = (remote.service, remote.path, remote.interface, signal)
        self._signals.setdefault(key, []).append(handler)
        self._appeared.setdefault(remote.service, [])

    def when_there(self, service: str, callback: Appeared) -> None:
        """Call back each time when a service is found: at a connection, and when it has been restarted."""
        self._appeared.setdefault(service, []).append(callback)

    async def call(self, remote: Remote, member: str, signature: str = "", *arguments: Any) -> Message:
        """Call a method and return the reply.

        Raises:
            NoSystemBusError: there is no bus, or it was lost meanwhile.
            NotAllowedError: this user may not do that.
            NoSuchUnitError: systemd has no such unit.
            ServiceCallError: the service failed, is not there, or did not answer in time.
        """
        await self._tried.wait()
        connection = self._socket
        if connection is None:
            raise NoSystemBusError(self._reason)
        return await self._ask(connection, remote, member, signature, arguments)

    async def get(self, remote: Remote, name: str) -> Any:
        """Return a property's value; raises like `call`."""
        reply = await self.call(Remote(remote.service, remote.path, PROPERTIES), "Get", "ss", remote.interface, name)
        return expect(reply, "v")[0].value

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="system bus")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._callbacks, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        said = ""
        while True:
            reason = "the connection to D-Bus was lost"
            used = False
            try:
                connection = BusSocket(self._address)
                try:
                    await self._use(connection)
                finally:
                    used = self._socket is not None
                    self._socket, self._reason = None, reason
                    self._owners.clear()
                    connection.close()
            except (FileNotFoundError, ConnectionRefusedError):
                reason = "this system has no D-Bus, or it is not running"
            except (EOFError, ConnectionError):
                pass  # the daemon ended
            except (OSError, AuthError, ValueError, SystemBusError) as error:
                reason = f"the connection to D-Bus failed: {error}"
            if used:
                delay, said = FIRST_RETRY_SECONDS, ""
            if reason != said:
                _log.info("%s; trying again", reason)
            said = self._reason = reason
            self._tried.set()
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    async def _use(self, connection: BusSocket) -> None:
        async with asyncio.timeout(CALL_SECONDS):
            await connection.connect()
        connection.add_message_handler(self._take)
        for service in self._appeared:
            await self._match(
                connection, f"sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{service}'"
            )
        for service, path, interface, signal in self._signals:
            await self._match(connection, f"sender='{service}',path='{path}',interface='{interface}',member='{signal}'")
        self._socket = connection
        self._tried.set()
        for service in self._appeared:
            await self._find(connection, service)
        await connection.until_lost()

    async def _match(self, connection: BusSocket, rule: str) -> None:
        await self._ask(
            connection, Remote(BUS, "/org/freedesktop/DBus", BUS), "AddMatch", "s", (f"type='signal',{rule}",)
        )

    async def _find(self, connection: BusSocket, service: str) -> None:
        """Note who owns a service's name; a service that is started on demand may have no owner yet."""
        remote = Remote(BUS, "/org/freedesktop/DBus", BUS)
        try:
            reply = await self._ask(connection, remote, "GetNameOwner", "s", (service,))
        except ServiceCallError:
            return
        self._own(service, expect(reply, "s")[0])

    async def _ask(
        self, connection: BusSocket, remote: Remote, member: str, signature: str, arguments: Sequence[Any]
    ) -> Message:
        message = Message(
            destination=remote.service,
            path=remote.path,
            interface=remote.interface,
            member=member,
            signature=signature,
            body=list(arguments),
        )
        if not connection.connected:
            raise NoSystemBusError("the connection to D-Bus was lost")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                reply = await connection.ask(message)
        except TimeoutError as error:
            raise ServiceCallError(f"{remote.service} did not answer {member} within {CALL_SECONDS:g} s") from error
        except (OSError, EOFError) as error:
            raise NoSystemBusError("the connection to D-Bus was lost") from error
        if reply is None:
            raise NoSystemBusError("the connection to D-Bus was lost")
        if reply.message_type is MessageType.ERROR:
            raise _translated(reply, remote, member)
        return reply

    def _take(self, message: Message) -> None:
        """Hand a signal on, if it comes from the service that it speaks for: anyone can send one on the bus."""
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == BUS and message.member == "NameOwnerChanged" and message.signature == "sss":
            name, _, owner = message.body
            if name in self._appeared:
                self._own(name, owner)
            return
        for (service, path, interface, signal), handlers in self._signals.items():
            if (message.path, message.interface, message.member) != (path, interface, signal):
                continue
            if self._owners.get(service) == message.sender:
                for handler in handlers:
                    handler(message.body)

    def _own(self, service: str, owner: str) -> None:
        if not owner:
            self._owners.pop(service, None)
        elif self._owners.get(service) != owner:
            self._owners[service] = owner
            for callback in self._appeared[service]:
                task = asyncio.create_task(_guarded(service, callback), name=f"{service} is there")
                self._callbacks.add(task)
                task.add_done_callback(self._callbacks.discard)


async def _guarded(service: str, callback: Appeared) -> None:
    try:
        await callback()
    except SystemBusError as error:
        _log.warning("%s: %s", service, error)


def expect(reply: Message, signature: str) -> list[Any]:
    """Return a reply's body.

    Raises:
        ServiceCallError: it has another type than it should.
    """
    if reply.signature != signature:
        raise ServiceCallError(f"{reply.sender} answered with type {reply.signature!r} instead of {signature!r}")
    body: list[Any] = reply.body
    return body


def _translated(reply: Message, remote: Remote, member: str) -> SystemBusError:
    name = reply.error_name or ""
    text = next((part for part in reply.body if isinstance(part, str)), "") or name
    said = f"{remote.interface}.{member}: {text}"
    if name in _REFUSALS:
        return NotAllowedError(said)
    if name in {"org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.LoadFailed"}:
        return NoSuchUnitError(said)
    return ServiceCallError(said)
