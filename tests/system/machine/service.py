"""What the services of a test have in common: a name on the bus, and methods by path and member.

They answer messages themselves instead of by dbus-next's ServiceInterface, because they must see who asks, answer with
the errors of polkit and logind, and tell when they have answered.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from appliance.node.dbus.socket import BusSocket

PROPERTIES = "org.freedesktop.DBus.Properties"

type Answer = tuple[str, Sequence[Any], Sequence[int]]
type Method = Callable[[Message], Answer]


class ServiceError(Exception):
    """An error of a service, by its name on the bus."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name
        self.text = text


def answer(signature: str = "", *body: Any, descriptors: Sequence[int] = ()) -> Answer:
    return signature, body, descriptors


class Service:
    """A service of the machine; `properties` are by path, interface and name."""

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        self._name = name
        self.methods: dict[tuple[str, str], Method] = {}
        self.properties: dict[tuple[str, str, str], Variant] = {}
        self.calls: list[str] = []
        self.unanswered: set[str] = set()
        """Members that are never answered."""
        self._bus: BusSocket | None = None

    @property
    def bus(self) -> BusSocket:
        assert self._bus is not None
        return self._bus

    async def connect(self) -> None:
        self._bus = BusSocket(self._address)
        await self._bus.connect()
        self._bus.add_message_handler(self._take)
        await self._bus.request_name(self._name)

    def disconnect(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    async def signal(self, path: str, interface: str, member: str, signature: str, *body: Any) -> None:
        message = Message.new_signal(path, interface, member, signature, list(body))
        await asyncio.wait_for(self.bus.send(message), 5)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def _take(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if message.interface == PROPERTIES and message.member == "Get":
            return self._property(message)
        self.calls.append(message.member)
        if message.member in self.unanswered:
            return True
        method = self.methods.get((message.path, message.member))
        if method is None:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownMethod", message.member)
        try:
            signature, body, descriptors = method(message)
        except ServiceError as error:
            return Message.new_error(message, error.name, error.text)
        return Message.new_method_return(message, signature, list(body), list(descriptors))

    def _property(self, message: Message) -> Message:
        found = self.properties.get((message.path, *message.body))
        if found is None:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", "no such property")
        return Message.new_method_return(message, "v", [found])
