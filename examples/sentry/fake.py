"""A Sentry that can be unwell: down, silent, overloaded, or of another opinion."""

import gzip
import json
import threading
from collections import Counter
from http.server import ThreadingHTTPServer

import brotli

from common import QuietHandler, free_ports

# Sentry's SDK takes the second where it finds it.
DECODERS = {"gzip": gzip.decompress, "br": brotli.decompress, None: bytes}


class Server(ThreadingHTTPServer):
    """Thinks nothing of it when a client leaves."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


def items(body):
    """The items of an envelope: (header, payload)."""
    head, _, rest = body.partition(b"\n")
    json.loads(head)
    while rest:
        head, _, rest = rest.partition(b"\n")
        header = json.loads(head)
        length = header.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
        if len(rest) < length or rest[length : length + 1] not in (b"", b"\n"):
            raise ValueError(f"an item of {length} bytes ends elsewhere")
        yield header, rest[:length]
        rest = rest[length + 1 :]


class Fake:
    """Listens where its DSN says, unless it is down. What it took is in `events`."""

    MOODS = ["well", "down", "hangs", "limited", "quietly limited", "too large", "broken"]

    def __init__(self, mood="well"):
        self.mood, self.port = mood, free_ports(1)[0]
        # Events that it said yes to, all that it was sent, and what was wrong with the sending.
        self.events, self.attempts, self.problems = [], Counter(), []
        # Each envelope, whatever was said to it.
        self.envelopes = []
        self._over, self._lock, self._server = threading.Event(), threading.Lock(), None
        if mood != "down":
            self._listen()

    @property
    def dsn(self):
        return f"http://{'5' * 32}@127.0.0.1:{self.port}/42"

    def close(self):
        """Stops listening; whoever waits for an answer is let go."""
        self._over.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _listen(self):
        fake = self

        class Handler(QuietHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                fake._take(self, body)

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _take(self, request, body):
        try:
            body = DECODERS[request.headers["content-encoding"]](body)
            with self._lock:
                self.envelopes.append(body)
            took = [(header.get("type"), json.loads(payload)) for header, payload in items(body)]
            if (
                request.path != "/api/42/envelope/"
                or f"sentry_key={'5' * 32}" not in request.headers["x-sentry-auth"]
            ):
                raise ValueError(f"{request.path} with {request.headers['x-sentry-auth']}")
        except (ValueError, OSError, TypeError, KeyError) as error:
            with self._lock:
                self.problems.append(f"Sentry was sent what is no envelope: {error}")
            return request.answer(400, "application/json", b"{}")
        status, headers = self._answer()
        with self._lock:
            for kind, payload in took:
                self.attempts[kind] += 1
                if kind == "event" and status == 200:
                    self.events.append(payload)
        if status is None:
            self._over.wait()
            request.close_connection = True
            return None
        return request.answer(status, "application/json", b"{}", headers)

    def _answer(self):
        limits = ("x-sentry-rate-limits", "60:error;transaction:key")
        return {
            "well": (200, []),
            "hangs": (None, []),
            "limited": (429, [limits, ("retry-after", "60")]),
            # A limit may come with an event that was taken.
            "quietly limited": (200, [limits]),
            "too large": (413, []),
            "broken": (500, []),
        }[self.mood]
