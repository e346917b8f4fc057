"""How long an event of a stream takes from the service's write to the caller."""

import socket
import subprocess
import threading
import time

EVENTS, PAUSE = 100, 0.02


class Ticker:
    """A service whose every answer is an event stream; each event says when it was written."""

    def __init__(self, events=EVENTS):
        self._events, self._listener = events, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, there):
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while b"\r\n\r\n" not in (there.recv(65536) or b"\r\n\r\n"):
                pass
            there.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
            for _ in range(self._events):
                time.sleep(PAUSE)
                event = f"data: {time.monotonic_ns()}\n\n".encode()
                there.sendall(b"%x\r\n%s\r\n" % (len(event), event))
            there.sendall(b"0\r\n\r\n")
        except OSError:
            pass
        there.close()


def delays(lines):
    """Milliseconds of each event, from lines as they come."""
    return [
        (time.monotonic_ns() - int(line.split()[1])) / 1e6 for line in lines if line.startswith(b"data: ")
    ]


def by_socket(port):
    """As an HTTP/1.1 client that does nothing else."""
    with socket.create_connection(("127.0.0.1", port)) as there:
        there.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nAccept: text/event-stream\r\n\r\n")
        with there.makefile("rb") as lines:
            return delays(line for line in iter(lines.readline, b"0\r\n"))


def by_curl(url, *options):
    """As curl, which writes each piece at once."""
    with subprocess.Popen(["curl", "-sN", "--max-time", "30", *options, url], stdout=subprocess.PIPE, bufsize=0) as curl:
        return delays(iter(curl.stdout.readline, b""))


def median(values):
    return sorted(values)[len(values) // 2]


def worst(values):
    """All but one in a hundred are at most this."""
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]
