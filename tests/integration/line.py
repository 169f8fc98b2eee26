"""A line between devices and server that a test controls: it records, delays and breaks."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass
class Line:
    """Forwards TCP connections on a port of this machine to another.

    Attributes:
        to: port of the server.
        delay_s: each chunk waits at random up to this long.
        break_share: of chunks that end their connection instead of arriving.
        seed: of delays and breaks.
        keep: whether to record what passes.
        up, down: recorded streams, one for each connection.
        broken: connections that were ended.
    """

    to: int
    delay_s: float = 0.0
    break_share: float = 0.0
    seed: int = 0
    keep: bool = False
    up: list[bytearray] = field(default_factory=list)
    down: list[bytearray] = field(default_factory=list)
    broken: int = 0

    def __enter__(self) -> Line:
        self._random = random.Random(self.seed)
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *what: object) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.to), timeout=5)
            except OSError:
                near.close()
                continue
            near.settimeout(None)
            far.settimeout(None)
            for source, sink, streams in ((near, far, self.up), (far, near, self.down)):
                stream = bytearray()
                if self.keep:
                    streams.append(stream)
                threading.Thread(
                    target=self._pump, args=(source, sink, stream), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, stream: bytearray) -> None:
        try:
            while not self._over.is_set():
                chunk = source.recv(CHUNK)
                if not chunk:
                    break
                if self.keep:
                    stream += chunk
                if self.delay_s:
                    time.sleep(self._random.uniform(0.0, self.delay_s))
                if self._random.random() < self.break_share:
                    self.broken += 1
                    break
                sink.sendall(chunk)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
