"""dbus-next's connection, mended where version 0.2.3 leaks a socket or turns in circles."""

import contextlib
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message

MOST_LINE_BYTES = 16_384
"""libdbus's own limit for a line of the authentication."""


class BusSocket(MessageBus):
    """A connection to a message bus that is closed for good by `close`."""

    _stream: Any
    _sock: Any
    _loop: Any
    _disconnect_future: Any

    def __init__(self, address: str) -> None:
        """Connect. Raises OSError, or ValueError for an address that makes no sense."""
        try:
            super().__init__(bus_address=address, negotiate_unix_fd=True)
        except BaseException:
            self._close_socket()
            raise

    async def ask(self, message: Message) -> Message | None:
        """Send a call and return the reply, or None if the connection was closed meanwhile.

        Raises EOFError or OSError if it broke.
        """
        reply: Message | None = await self.call(message)
        return reply

    async def until_lost(self) -> None:
        """Wait for the connection's end. Raises EOFError or OSError if it broke."""
        untyped: Any = self
        await untyped.wait_for_disconnect()

    def close(self) -> None:
        """End the connection; whoever waits for a reply is told."""
        untyped: Any = self
        untyped._finalize(None)  # noqa: SLF001 - dbus-next has no other way to end a connection at once
        self._close_socket()
        if self._disconnect_future.done() and not self._disconnect_future.cancelled():
            self._disconnect_future.exception()  # it may be that nobody asked for it

    def _close_socket(self) -> None:
        for part in ("_stream", "_sock"):
            if (opened := getattr(self, part, None)) is not None:
                with contextlib.suppress(OSError):
                    opened.close()

    async def _auth_readline(self) -> str:
        """Read a line; dbus-next's own version never returns when the daemon hangs up."""
        line = b""
        while not line.endswith(b"\r\n"):
            received = await self._loop.sock_recv(self._sock, 1)
            if not received or len(line) > MOST_LINE_BYTES:
                raise EOFError("the bus ended the connection while it was being opened")
            line += received
        return line[:-2].decode()
