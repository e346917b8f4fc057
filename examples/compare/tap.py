"""A TCP relay in front of a service. It changes nothing, and keeps what the service was sent, byte for byte."""

import asyncio
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Sent:
    """One request as the service received it."""

    method: str
    target: str
    version: str
    headers: list
    body: bytes
    framing: str
    connection: int
    at: float


@dataclass
class Connection:
    sent: bytearray = field(default_factory=bytearray)
    # When the bytes up to an offset had come.
    times: list = field(default_factory=list)


class Tap:
    def __init__(self, host, port):
        self._to = (host, port)
        self._connections, self._tasks = [], set()
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self):
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _relay(self, reader, writer):
        # The loop alone does not keep a task from being collected.
        self._tasks.add(asyncio.current_task())
        connection = Connection()
        self._connections.append(connection)
        service_reader, service_writer = await asyncio.open_connection(*self._to)
        await asyncio.gather(
            self._pump(reader, service_writer, connection),
            self._pump(service_reader, writer, None),
            return_exceptions=True,
        )
        for end in (writer, service_writer):
            end.close()

    async def _pump(self, reader, writer, connection):
        try:
            while piece := await reader.read(65536):
                if connection:
                    connection.sent += piece
                    connection.times.append((len(connection.sent), time.monotonic()))
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        except OSError:
            # One side is gone; the other has to learn of it.
            writer.close()

    def requests(self, case):
        """The requests that carry `X-Case: case`, in the order in which they came."""
        found = []
        for number, connection in enumerate(list(self._connections)):
            found += [sent for sent in parse(connection, number) if ("x-case", case) in lower(sent.headers)]
        return sorted(found, key=lambda sent: sent.at)


def lower(headers):
    return [(name.lower(), value) for name, value in headers]


def parse(connection, number):
    data, offset = bytes(connection.sent), 0
    while (end := data.find(b"\r\n\r\n", offset)) >= 0:
        at = next(moment for upto, moment in connection.times if upto > offset)
        lines = data[offset:end].decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        headers = [tuple(part.strip(" \t") for part in line.split(":", 1)) for line in lines[1:]]
        of = dict(lower(headers))
        body, offset = b"", end + 4
        framing = "none"
        if "chunked" in of.get("transfer-encoding", ""):
            framing = "chunked"
            body, offset = unchunk(data, offset)
        elif "content-length" in of:
            framing, length = "length", int(of["content-length"])
            body, offset = data[offset : offset + length], offset + length
        yield Sent(method, target, version, headers, body, framing, number, at)
        if "upgrade" in of:
            return


def unchunk(data, offset):
    body = bytearray()
    while (end := data.find(b"\r\n", offset)) >= 0:
        size = int(data[offset:end].split(b";")[0] or b"0", 16)
        offset = end + 2
        body += data[offset : offset + size]
        offset += size + 2
        if size == 0:
            break
    return bytes(body), offset
