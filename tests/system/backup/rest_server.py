"""A server of restic's REST protocol, over TLS and with a log-in: what rest-server does, in a few lines, for tests.

https://restic.readthedocs.io/en/stable/REST_backend.html
"""

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_VERSION = "application/vnd.x.restic.rest.v2"
_PLACE = re.compile(r"/house/(?:(config)|(data|keys|locks|snapshots|index)/([0-9a-f]{64})?)?(?:\?create=true)?")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    authorization: str

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass

    def _file(self) -> Path | None:
        """Return the file or folder that the request is about; answer it if that is nothing."""
        found = _PLACE.fullmatch(self.path)
        if self.headers.get("Authorization") != self.authorization:
            self._answer(401)
        elif found is None:
            self._answer(404)
        else:
            return self.folder / (found[1] or f"{found[2] or ''}/{found[3] or ''}".strip("/"))
        return None

    def _answer(self, status: int, body: bytes = b"", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _VERSION)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        if (file := self._file()) is not None:
            self._answer(200, length=file.stat().st_size) if file.is_file() else self._answer(404)

    def do_GET(self) -> None:
        if (file := self._file()) is None:
            return
        if file.is_dir():
            listed = [{"name": one.name, "size": one.stat().st_size} for one in file.iterdir()]
            self._answer(200, json.dumps(listed).encode())
        elif not file.is_file():
            self._answer(404)
        else:
            content = file.read_bytes()
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span is None:
                self._answer(200, content)
            else:
                self._answer(206, content[int(span[1]) : int(span[2]) + 1 if span[2] else None])

    def do_POST(self) -> None:
        file = self._file()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if file is None:
            return
        if self.path.endswith("create=true"):
            for name in ("data", "keys", "locks", "snapshots", "index"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        else:
            file.write_bytes(body)
        self._answer(200)

    def do_DELETE(self) -> None:
        if (file := self._file()) is not None:
            file.unlink(missing_ok=True)
            self._answer(200)


@contextmanager
def rest_server(folder: Path, *, user: str, password: str, context: ssl.SSLContext) -> Iterator[int]:
    """Serve a folder, and yield the port."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    handler = type("Handler", (_Handler,), {"folder": folder, "authorization": f"Basic {token}"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
