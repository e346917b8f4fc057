"""What the clients ask for: some bytes, a package index for pip, and a registry for npm, by HTTP and by HTTPS."""

import base64
import hashlib
import io
import json
import random
import socket
import tarfile
import threading
import zipfile
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

from common import QuietHandler

PACKAGE, VERSION = "tracecar-example", "1.0.0"
BYTES = random.Random(1).randbytes(100_000)
WHEEL_NAME, TARBALL_NAME = f"tracecar_example-{VERSION}-py3-none-any.whl", f"{PACKAGE}-{VERSION}.tgz"


def wheel():
    of_it = f"tracecar_example-{VERSION}.dist-info"
    files = {
        "tracecar_example.bin": BYTES,
        f"{of_it}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n".encode(),
        f"{of_it}/WHEEL": b"Wheel-Version: 1.0\nGenerator: examples\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{of_it}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{of_it}/RECORD"]).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarball():
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in {
            "package.json": json.dumps({"name": PACKAGE, "version": VERSION}).encode(),
            "some.bin": BYTES,
        }.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


WHEEL, TARBALL = wheel(), tarball()


def page(path, base):
    """Content type and body of what is at a path, if anything is; `base` is the URL that was asked."""
    if path == "/bytes":
        return "application/octet-stream", BYTES
    if path == f"/simple/{PACKAGE}/":
        digest = hashlib.sha256(WHEEL).hexdigest()
        return "text/html", f'<a href="/files/{WHEEL_NAME}#sha256={digest}">{WHEEL_NAME}</a>'.encode()
    if path == f"/files/{WHEEL_NAME}":
        return "application/octet-stream", WHEEL
    if path == f"/{PACKAGE}":
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
        dist = {"tarball": f"{base}/files/{TARBALL_NAME}", "integrity": integrity}
        versions = {VERSION: {"name": PACKAGE, "version": VERSION, "dist": dist}}
        told = {"name": PACKAGE, "dist-tags": {"latest": VERSION}, "versions": versions}
        return "application/json", json.dumps(told).encode()
    if path == f"/files/{TARBALL_NAME}":
        return "application/octet-stream", TARBALL
    return None


@dataclass(frozen=True)
class Asked:
    """A request as a target saw it."""

    method: str
    target: str
    status: int
    sent: int
    traced: bool


class Target:
    """A server that remembers what it was asked since it was last looked at."""

    def __init__(self, host, address, tls=None):
        target = self
        self._asked, self._connections = [], 0

        class Handler(QuietHandler):
            def setup(self):
                # Here and not where connections are accepted, so that a handshake holds nobody up.
                if tls:
                    self.request = tls.wrap_socket(self.request, server_side=True)
                super().setup()
                target._connections += 1

            def do_GET(self):
                found = page(self.path.partition("?")[0], target.url)
                status, (kind, body) = (200, found) if found else (404, ("text/plain", b"nothing here\n"))
                # Noted first: who has the last byte may look at once.
                target._asked.append(Asked(self.command, self.path, status, len(body), "traceparent" in self.headers))
                self.answer(status, kind, body)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.do_GET()

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True

            def handle_error(self, *_):
                # A client that does not like our certificate says so itself.
                pass

        self._server = Server((address, 0), Handler)
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self):
        """The requests, and the number of connections, since it was last asked."""
        taken = self._asked, self._connections
        self._asked, self._connections = [], 0
        return taken
