"""The same bytes to a service directly and through tracecar, and what each side saw: header lines in their order and case,
framing, interim answers, trailers, and whether it is whole.

The service is a script, so that it can do what no server does on request: answer before the content has come, or break
off in the middle. nginx, gunicorn and uvicorn answer some of it as well.
"""

import os
import re
import shutil
import socket
import threading
from dataclasses import dataclass, field

from common import TRACECAR_READY, free_ports

# How long nobody may say anything.
PATIENCE = 2.0
# What tracecar is documented to add.
ADDED = re.compile(rb"traceparent:|x-correlation-id:|server-timing: trace;desc=", re.IGNORECASE)
# About one hop; what they come to is compared as framing.
HOP = re.compile(rb"(connection|keep-alive|transfer-encoding|te|upgrade|proxy-connection):", re.IGNORECASE)
# Drawn anew each time.
FRESH = re.compile(rb"date:", re.IGNORECASE)


class Step:
    """Something that one side does."""


@dataclass
class Send(Step):
    data: bytes


@dataclass
class Until(Step):
    """Reads until a text has come; heads end with an empty line."""

    text: bytes = b"\r\n\r\n"


class Close(Step):
    """Closes the sending side. A service closes the connection with it."""


@dataclass
class Case:
    name: str
    # What the caller does, one step after the other; then it reads to the end, or until nothing comes any more.
    asks: list
    # What the service does, where it is a script.
    serves: list = field(default_factory=list)
    service: str = "script"
    client: str = "bytes"
    known: str = ""


@dataclass
class Side:
    """What one side got."""

    data: bytearray = field(default_factory=bytearray)
    # end, reset, or nothing where the connection was still open.
    end: str = ""


def act(there, steps, seen):
    """Does the steps, and notes what comes meanwhile."""
    there.settimeout(PATIENCE)
    try:
        for step in steps:
            if isinstance(step, Send):
                there.sendall(step.data)
            elif isinstance(step, Close):
                there.shutdown(socket.SHUT_WR)
            else:
                at = seen.data.find(step.text, getattr(seen, "read", 0))
                while at < 0:
                    if not (piece := there.recv(65536)):
                        seen.end = "end"
                        return
                    seen.data += piece
                    at = seen.data.find(step.text, getattr(seen, "read", 0))
                seen.read = at + len(step.text)
        while piece := there.recv(65536):
            seen.data += piece
        seen.end = "end"
    except TimeoutError:
        seen.end = ""
    except OSError:
        seen.end = "reset"


class Script:
    """A service that does what a case says, on each connection anew."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.steps, self.seen = [], []
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self, steps):
        self.steps, self.seen = steps, []

    def _accept(self):
        while True:
            there = self._listener.accept()[0]
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(there,), daemon=True).start()

    def _serve(self, there):
        seen = Side()
        self.seen.append(seen)
        act(there, self.steps, seen)
        there.close()


def ask(port, steps):
    """What the caller got."""
    seen = Side()
    with socket.create_connection(("127.0.0.1", port)) as there:
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        act(there, steps, seen)
    return seen


@dataclass
class Message:
    """A request or a response as somebody got it."""

    start: bytes
    lines: list
    # length, chunked, close or none.
    framing: str
    content: bytes
    # With names in lower case, which is all that HTTP/2 has.
    trailers: list
    # Whether it came to its end. A reset says the same as an end of the connection in its middle.
    whole: bool


def messages(side, responses, methods=()):
    """Everything that came, message for message; what cannot be read is one of its own."""
    data, at, found, methods = bytes(side.data), 0, [], list(methods)
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            found.append(Message(b"?", [], "none", data[at:], [], False))
            break
        start, *lines = data[at:end].split(b"\r\n")
        at = end + 4
        of = {}
        for line in lines:
            name, _, value = line.partition(b":")
            of.setdefault(name.lower(), value.strip().lower())
        status = int(start.split(b" ")[1]) if responses else 0
        interim = responses and 100 <= status < 200
        method = b"" if not responses or interim else (methods.pop(0) if methods else b"GET")
        framing, content, trailers, whole = "none", b"", [], True
        if status == 101:
            framing, content, at = "tunnel", data[at:], len(data)
        elif interim or status in (204, 304) or method == b"HEAD":
            pass
        elif b"chunked" in of.get(b"transfer-encoding", b""):
            framing = "chunked"
            content, trailers, at, whole = unchunk(data, at)
        elif b"content-length" in of:
            length, framing = int(of[b"content-length"]), "length"
            content, at, whole = data[at : at + length], at + length, len(data) - at >= length
        elif responses:
            framing, content, at, whole = "close", data[at:], len(data), side.end == "end"
        found.append(Message(start, lines, framing, content, trailers, whole))
    return found


def unchunk(data, at):
    content, trailers = bytearray(), []
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end].split(b";")[0], 16)
        at = end + 2
        if size == 0:
            while (end := data.find(b"\r\n", at)) >= 0:
                line, at = data[at:end], end + 2
                if not line:
                    return bytes(content), trailers, at, True
                name, colon, value = line.partition(b":")
                trailers.append(name.lower() + colon + value)
            break
        content += data[at : at + size]
        at += size + 2
    return bytes(content), trailers, len(data), False


def kept(lines):
    """Lines that have to be the same, in their order."""
    return [line for line in lines if not ADDED.match(line) and not HOP.match(line) and not FRESH.match(line)]


def differences(what, before, after):
    """What is another message, or another part of one."""
    told = []
    if len(before) != len(after):
        return [f"{what}: {[m.start for m in before]} became {[m.start for m in after]}"]
    for mine, theirs in zip(before, after, strict=True):
        # Each side of an intermediary speaks its own version (RFC 9112 section 2.3).
        starts = [re.sub(rb"HTTP/1\.[01]", b"HTTP/1.x", m.start) for m in (mine, theirs)]
        if starts[0] != starts[1]:
            told.append(f"{what}: {starts[0]!r} became {starts[1]!r}")
        if kept(mine.lines) != kept(theirs.lines):
            told.append(f"{what}: {kept(mine.lines)} became {kept(theirs.lines)}")
        for part in ("framing", "content", "trailers", "whole"):
            first, second = getattr(mine, part), getattr(theirs, part)
            # What ends with its connection may come in chunks: then the connection goes on.
            if first != second and (part, first, second) != ("framing", "close", "chunked"):
                told.append(f"{what}: {part} {short(first)} became {short(second)}")
    return told


def short(value):
    return f"{value[:60]!r}… of {len(value)} bytes" if isinstance(value, bytes) and len(value) > 100 else repr(value)


def run(case, way):
    """Runs a case both ways; returns every difference."""
    (mine, at_service), (theirs, behind) = (attempt(case, way, port) for port in (way.direct, way.through))
    told = []
    if way.script:
        asked, forwarded = ([each for side in sides for each in messages(side, False)] for sides in (at_service, behind))
        told += differences("request", asked, forwarded) + ([] if asked else ["no request came"])
    told += differences("response", messages(mine, True, methods(case)), messages(theirs, True, methods(case)))
    if not mine.data:
        told.append("no response came")
    return told


@dataclass
class Way:
    """A service, and how it is reached directly and through tracecar."""

    direct: int
    through: int
    script: Script | None = None


def attempt(case, way, port):
    """What the caller got, and what the service."""
    if way.script:
        way.script.begin(case.serves)
    return ask(port, case.asks), way.script.seen if way.script else []


def methods(case):
    """Those of the requests, for an answer to HEAD has no content."""
    sent = b"".join(step.data for step in case.asks if isinstance(step, Send))
    return re.findall(rb"([A-Z]+) [^ ]+ HTTP/1\.[01]\r\n", sent)


NGINX = """
daemon off; master_process off; pid {work}/nginx.pid; error_log stderr notice; {user}
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 4; etag on;
  client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
  server {{ listen 127.0.0.1:{port}; root {work}; index index.html; }}
}}
"""


def ways(programs, work, tracecar, servers):
    """The script, and servers that people use, each with a tracecar of its own; by their names."""
    script = Script()
    ports = {"script": script.port, **servers}
    if shutil.which("nginx"):
        place = work / "nginx"
        place.mkdir()
        (place / "index.html").write_text("hello from nginx\n")
        (port,) = free_ports(1)
        user = "user root;" if os.geteuid() == 0 else ""
        (place / "nginx.conf").write_text(NGINX.format(work=place, port=port, user=user))
        # Its address is known; the pattern only has to find one in what it says.
        programs.start("nginx", r"(nginx)/(\d+)", "nginx", "-p", place, "-c", place / "nginx.conf")
        ports["nginx"] = port
    else:
        print("SKIPPED nginx as a service: there is none")
    found = {}
    for name, port in ports.items():
        _, through = programs.start(
            f"tracecar-for-{name}", TRACECAR_READY, tracecar, "run", "--service", "wire", "--listen", "127.0.0.1:0",
            "--admin", "127.0.0.1:0", "--to", f"http://127.0.0.1:{port}", OTEL_TRACES_EXPORTER="none",
        )
        found[name] = Way(port, through, script if name == "script" else None)
    return found


def cases(found):
    yield from scripted()
    for service in found:
        if service != "script":
            yield from (Case(name, asks, service=service) for name, asks in real())


HOST = b"Host: shop.example\r\n"
OK = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def get(*lines, target=b"/", method=b"GET", version=b"1.1"):
    head = b"%s %s HTTP/%s\r\n%s" % (method, target, version, HOST)
    return Send(head + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def post(*lines, body=b"hello"):
    return Send(get(*lines, method=b"POST").data + body)


def answer(*lines, first=b"200 OK", body=b"ok"):
    """A response that is the last of its connection."""
    lines = (*lines, b"Connection: close")
    return Send(b"HTTP/1.1 %s\r\n%s\r\n%s" % (first, b"".join(line + b"\r\n" for line in lines), body))


def scripted():
    """Cases for the service that does as it is told."""
    head, length = Until(), b"Content-Length: 2"
    odd = [b"X-MiXeD: 1", b"x-many: 1", b"X-Other: between", b"X-Many: 2, 3", b"x-many: 1", b"X-Empty:", b"X-Latin: caf\xe9"]
    cookies = [b"Set-Cookie: a=1; Path=/", b"X-A: 1", b"set-cookie: b=2, c", b"Set-Cookie: a=3"]
    expect = b"Expect: 100-continue"
    five, chunked = b"Content-Length: 5", b"Transfer-Encoding: chunked"
    trailing = b"5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    yield Case("lines in their order and case", [get(*odd)], [head, answer(length, *odd)])
    yield Case("cookies in their order", [get(b"Cookie: a=1; b=2", b"cookie: c=3")], [head, answer(length, *cookies)])
    yield Case("150 lines", [get(*[b"X-Number-%d: %d" % (n, n) for n in range(150)])], [head, answer(length, *[b"X-Line: %d" % n for n in range(150)])])
    yield Case("target of 30000 bytes", [get(target=b"/" + b"x" * 30000)], [head, answer(length)])
    yield Case("odd target", [get(target=b"//a/../b/./%2e%2F%zz?x=%2F&&=?/;+|")], [head, answer(length)])
    yield Case("header of 20000 bytes", [get(b"X-Long: " + b"x" * 20000)], [head, answer(length, b"X-Long: " + b"y" * 20000)])
    yield Case("reason of words", [get()], [head, answer(length, first=b"299 Mostly all right")])
    yield Case("reason missing", [get()], [head, answer(length, first=b"200 ")])
    yield Case("length", [post(five)], [head, Until(b"hello"), answer(length)])
    yield Case("chunks", [post(chunked, body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")], [Until(b"\r\n0\r\n\r\n"), answer(chunked, body=b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n")])
    yield Case("extensions of chunks", [post(chunked, body=b"5;a=b\r\nhello\r\n0;c\r\n\r\n")], [Until(b"hello"), Until(b"\r\n\r\n"), answer(chunked, body=b'2;a="b"\r\nok\r\n0;z\r\n\r\n')])
    yield Case("content of get", [Send(get(five).data + b"hello")], [Until(b"hello"), answer(length)])
    yield Case("content of get, in chunks", [Send(get(chunked).data + b"5\r\nhello\r\n0\r\n\r\n")], [Until(b"\r\n0\r\n\r\n"), answer(length)])
    yield Case("to the end of the connection", [get()], [head, answer(body=b"to the end"), Close()])
    yield Case("103", [get()], [head, Send(hints), answer(length)])
    yield Case("several interim answers", [get()], [head, Send(b"HTTP/1.1 102 Processing\r\n\r\n" + hints + hints + b"HTTP/1.1 199 Odd\r\nX-A: 1\r\n\r\n"), answer(length)])
    yield Case("expect", [get(expect, five, method=b"POST"), Until(), Send(b"hello")], [head, Send(b"HTTP/1.1 100 Continue\r\nX-From: service\r\n\r\n"), Until(b"hello"), answer(length)])
    yield Case("expect, and two 100", [get(expect, five, method=b"POST"), Until(), Send(b"hello")], [head, Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"), Until(b"hello"), answer(length)])
    for refusal in (b"401 Unauthorized", b"413 Content Too Large", b"417 Expectation Failed"):
        yield Case(f"expect, and {refusal.decode()}", [get(expect, five, method=b"POST")], [head, answer(length, first=refusal), Close()])
    yield Case("trailers of a request", [post(chunked, b"Trailer: X-Sum", body=trailing)], [Until(b": 2\r\n\r\n"), answer(length)])
    yield Case("trailers of a response", [get(b"Connection: TE", b"TE: trailers")], [head, answer(chunked, b"Trailer: X-Sum", body=trailing)])
    yield Case("head", [get(method=b"HEAD")], [head, answer(b"Content-Length: 1234", body=b"")])
    yield Case("head, chunked", [get(method=b"HEAD")], [head, answer(chunked, body=b"")])
    yield Case("204", [get()], [head, answer(b"X-A: 1", first=b"204 No Content", body=b"")])
    yield Case("304 with length", [get(b'If-None-Match: "a"')], [head, answer(b'ETag: "a"', b"Content-Length: 1234", first=b"304 Not Modified", body=b"")])
    yield Case("205", [get()], [head, answer(b"Content-Length: 0", first=b"205 Reset Content", body=b"")])
    yield Case("answer before the content", [get(b"Content-Length: 10", method=b"POST"), Until(b"ok"), Send(b"helloworld")], [head, answer(length), Until(b"helloworld"), Close()])
    yield Case("half-close behind a request", [get(), Close()], [head, answer(length)])
    yield Case("half-close behind content", [post(five), Close()], [Until(b"hello"), answer(length)])
    yield Case("three in a row", [Send(get(target=b"/1").data + post(five).data + get(target=b"/3").data)],
               [head, Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"), Until(b"hello"), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"), head, answer(b"Content-Length: 1", body=b"3")])
    yield Case("caller of HTTP/1.0", [get(version=b"1.0")], [head, answer(length)])
    yield Case("caller of HTTP/1.0, to the end", [get(version=b"1.0")], [head, answer(body=b"to the end"), Close()])
    yield Case("service of HTTP/1.0", [get()], [head, Send(b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nto the end"), Close()])
    yield Case("length that breaks off", [get()], [head, answer(b"Content-Length: 100", body=b"half"), Close()])
    yield Case("chunks that break off", [get()], [head, answer(chunked, body=b"4\r\nhalf\r\n"), Close()])
    yield Case("chunk that breaks off", [get()], [head, answer(chunked, body=b"ff\r\nhalf"), Close()])
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nat once"
    yield Case("upgrade, and bytes at once", [get(b"Connection: Upgrade", b"Upgrade: x"), Until(b"at once"), Send(b"hello"), Close()], [head, Send(switching), Until(b"hello"), Send(b"heard"), Close()])


def real():
    """Cases for servers that people use. They close at the end, so nothing has to be waited for."""
    close = b"Connection: close"
    yield "get", [get(close)]
    yield "head", [get(close, method=b"HEAD")]
    yield "nothing there", [get(close, target=b"/nothing?a=%2F")]
    yield "method that is unknown", [get(close, method=b"FROB")]
    yield "two in a row", [Send(get().data + get(close).data)]
    yield "content", [post(close, b"Content-Length: 5")]
    yield "content in chunks", [post(close, b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")]
    yield "caller of HTTP/1.0", [get(version=b"1.0")]
    yield "half-close", [get(close), Close()]
    yield "options of the server", [get(close, target=b"*", method=b"OPTIONS")]
    yield "conditional", [get(close, b"If-None-Match: *")]
    yield "range", [get(close, b"Range: bytes=0-3")]
    yield "40 lines", [get(close, *[b"X-Number-%d: %d" % (n, n) for n in range(40)])]
    yield "expect", [get(close, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"), Until(), Send(b"hello")]
