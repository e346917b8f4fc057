"""Services that keep every byte they get. They take only what cannot be understood in two ways, and say what else came."""

import asyncio
import re
import threading
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(TOKEN + rb" [^\x00-\x20\x7f]+ HTTP/1\.[01]")
HEADER = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\r\n\x00]*)")


@dataclass
class Seen:
    target: str
    # Whether all of it came, and what was wrong with it.
    complete: bool
    fault: str
    raw: bytes


class Fault(Exception):
    pass


class Recorders:
    """As many services as are asked for, each at a port of its own."""

    def __init__(self, count):
        self.seen, self._tasks = [[] for _ in range(count)], set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(count, ready), daemon=True).start()
        ready.wait()

    def _run(self, count, ready):
        asyncio.set_event_loop(self._loop)

        async def start():
            servers = []
            for number in range(count):
                servers.append(await asyncio.start_server(self._service(number), "127.0.0.1", 0))
            self.ports = [server.sockets[0].getsockname()[1] for server in servers]
            self._servers = servers
            ready.set()

        self._loop.create_task(start())
        self._loop.run_forever()

    def _service(self, number):
        async def serve(reader, writer):
            # The loop alone does not keep a task from being collected.
            self._tasks.add(asyncio.current_task())
            try:
                while await self._one(number, reader, writer):
                    pass
            except OSError:
                pass
            writer.close()

        return serve

    async def _one(self, number, reader, writer):
        raw, seen = bytearray(), Seen("", False, "", b"")
        try:
            seen.complete = await take(reader, raw, seen)
        except Fault as fault:
            seen.fault = str(fault)
        seen.raw = bytes(raw)
        if raw:
            self.seen[number].append(seen)
        if seen.complete:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if raw.startswith(b"HEAD ") else b"ok"))
            await writer.drain()
        return seen.complete


async def line(reader, raw):
    """A line without its CRLF, or None where the connection ends before."""
    try:
        text = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as rest:
        raw += rest.partial
        return None
    except asyncio.LimitOverrunError:
        raise Fault("a line without end") from None
    except OSError:
        return None
    raw += text
    if not text.endswith(b"\r\n") or b"\r" in text[:-2] or b"\0" in text:
        raise Fault(f"a line with bare CR, bare LF or NUL: {text[:80]!r}")
    return text[:-2]


async def take(reader, raw, seen):
    """Reads one request; says whether it came to its end."""
    lines = []
    while (text := await line(reader, raw)) != b"":
        if text is None:
            return False
        lines.append(text)
    if not lines or not REQUEST_LINE.fullmatch(lines[0]):
        raise Fault(f"request line {lines[:1]!r}")
    seen.target = lines[0].split(b" ")[1].decode("latin-1")
    fields = [field(text) for text in lines[1:]]
    of = {name: [value for given, value in fields if given == name] for name, _ in fields}
    if len(of.get(b"host", [])) > 1 or (lines[0].endswith(b"1.1") and b"host" not in of):
        raise Fault(f"Host {of.get(b'host')!r}")
    lengths, codings = of.get(b"content-length", []), of.get(b"transfer-encoding", [])
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise Fault(f"framing {lengths!r} {codings!r}")
        return await chunks(reader, raw)
    if lengths:
        if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,19}", lengths[0]):
            raise Fault(f"framing {lengths!r}")
        return await exactly(reader, raw, int(lengths[0]))
    return True


def field(text):
    if not (found := HEADER.fullmatch(text)):
        raise Fault(f"header line {text[:80]!r}")
    return found[1].lower(), found[2].rstrip(b" \t")


async def chunks(reader, raw):
    while (text := await line(reader, raw)) is not None:
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", text):
            raise Fault(f"chunk size {text[:80]!r}")
        if int(text, 16) == 0:
            break
        if not await exactly(reader, raw, int(text, 16)) or (end := await line(reader, raw)) is None:
            return False
        if end:
            raise Fault("no CRLF behind a chunk")
    while text := await line(reader, raw):
        field(text)
    return text == b""


async def exactly(reader, raw, count):
    while count:
        piece = await reader.read(min(count, 65536))
        if not piece:
            return False
        raw += piece
        count -= len(piece)
    return True
