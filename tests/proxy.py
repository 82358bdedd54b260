"""A wire to PostgreSQL that can be cut at the worst moment: the statement is carried out, its reply never arrives."""

import selectors
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SOCKET = ".s.PGSQL.5432"
CHUNK = 65536


class Proxy:
    """Passes bytes between clients and the server whose socket is in ``server``. Use ``proxy()`` to make one."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.folder = folder
        self.cuts = 0
        self._server = server
        self._pattern = b""
        self._cuts_left = 0
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_the_reply_to(self, pattern: bytes, times: int = 1) -> None:
        """The next messages of clients that hold ``pattern`` reach the server; their replies reach nobody."""
        self._pattern, self._cuts_left = pattern, times

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
            server.connect(str(self._server / SOCKET))
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            with suppress(OSError):
                while True:
                    for key, _ in selector.select():
                        if not self._pass_on(key.fileobj, key.data, asks=key.fileobj is client):
                            return

    def _pass_on(self, source: Any, target: socket.socket, *, asks: bool) -> bool:
        """Returns whether the wire is whole."""
        data = source.recv(CHUNK)
        cut = asks and self._is_to_be_cut(data)
        if data:
            target.sendall(data)
        # The reply says that the server has carried it out; only the client never hears of it.
        return bool(data) and not (cut and target.recv(CHUNK))

    def _is_to_be_cut(self, data: bytes) -> bool:
        with self._lock:
            if not self._cuts_left or self._pattern not in data:
                return False
            self._cuts_left -= 1
            self.cuts += 1
            return True


@contextmanager
def proxy(server: Path) -> Iterator[Proxy]:
    """A proxy for as long as the block lasts; clients find it in its ``folder``, as they would find the server."""
    folder = Path(tempfile.mkdtemp(prefix="dbq-proxy-"))
    wire = Proxy(server, folder)
    try:
        yield wire
    finally:
        wire.close()
        shutil.rmtree(folder, ignore_errors=True)
