"""What the Python parts of the examples share: programs that are started and stopped, ports, and an OTLP receiver."""

import gzip
import os
import random
import re
import socket
import subprocess
import threading
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

# What tracecar says, last of all, when it is ready.
TRACECAR_READY = r"passing requests on.*listen=([\d.]+):(\d+)"
# The trace, the span and the flags that tracecar tells a caller in `Server-Timing`.
TIMING = re.compile(r"trace;desc=00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Program:
    """A program that is ready when a line of its standard error says so."""

    def __init__(self, name, pattern, command, log, env=None):
        self.name, self.address, self._ready = name, None, threading.Event()
        # Where the examples find this file is nothing that a program should see.
        env = {key: each for key, each in os.environ.items() if key != "PYTHONPATH"} | (env or {})
        self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, text=True, env=env)
        threading.Thread(target=self._read, args=(re.compile(pattern), log), daemon=True).start()
        if not self._ready.wait(30) or not self.address:
            self._process.kill()
            raise SystemExit(f"{name} did not start; its log is {log.name}:\n{Path(log.name).read_text()}")

    def _read(self, pattern, log):
        for line in self._process.stderr:
            log.write(line)
            log.flush()
            if not self._ready.is_set() and (found := pattern.search(line)):
                self.address = found[1], int(found[2])
                self._ready.set()
        self._ready.set()

    def kill(self):
        """Ends it as the kernel does when memory is short."""
        self._process.kill()
        self._process.wait(40)

    def stop(self):
        """Tells it to stop, and returns its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "killed"


class Programs:
    """Programs with a log each in one directory, stopped in the opposite order at the end of a `with`."""

    def __init__(self, logs):
        self._logs, self._running = logs, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self._running):
            program.stop()

    def start(self, name, pattern, *command, **env):
        """Starts a program, waits until it is ready, and returns the address that it named."""
        log = (self._logs / f"{name}.log").open("w")
        env = {key: str(each) for key, each in env.items()}
        self._running.append(Program(name, pattern, [str(word) for word in command], log, env))
        return self._running[-1].address

    def kill(self, name):
        """Kills the one of that name."""
        [program] = [each for each in self._running if each.name == name]
        self._running.remove(program)
        program.kill()

    def stop(self, prefix):
        """Stops those whose names begin so, latest first; returns a sentence for each that did not end well."""
        told = [(each.name, each.stop()) for each in reversed(self._running) if each.name.startswith(prefix)]
        self._running = [each for each in self._running if not each.name.startswith(prefix)]
        return [f"{name} ended with status {status}" for name, status in told if status != 0]


def free_ports(count):
    """Ports of loopback that nobody listens on, for programs that have to know of each other before they start.

    They lie below those that Linux gives to outgoing connections, so that none is taken before it is used.
    """
    held = []
    while len(held) < count:
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", random.randrange(18000, 32000)))
            held.append(candidate)
        except OSError:
            candidate.close()
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@dataclass
class Received:
    """A span as it came."""

    span: object
    schema: str
    scope: str
    resource: dict

    @cached_property
    def key(self):
        """Trace and span, as hexadecimal digits."""
        return self.span.trace_id.hex(), self.span.span_id.hex()

    @cached_property
    def parent(self):
        """The key of the parent, or None for the root of a trace."""
        return (self.key[0], self.span.parent_span_id.hex()) if self.span.parent_span_id else None

    @cached_property
    def attributes(self):
        return {pair.key: value(pair.value) for pair in self.span.attributes}

    @property
    def service(self):
        return self.resource.get("service.name")

    @property
    def kind(self):
        """SERVER, CLIENT and so on."""
        return Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_")

    @property
    def failed(self):
        return self.span.status.code == Status.STATUS_CODE_ERROR

    @property
    def links(self):
        """The keys of what it is linked to."""
        return [(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links]


class QuietHandler(BaseHTTPRequestHandler):
    """Serves HTTP/1.1 without a word about it."""

    protocol_version = "HTTP/1.1"
    # The head and the body of a response are two writes, and the second should not wait for the first.
    disable_nagle_algorithm = True

    def answer(self, status, content_type, body, headers=()):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        for name, each in headers:
            self.send_header(name, each)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Collector:
    """An OTLP receiver: HTTP, protobuf, gzip. It keeps every span with its resource and scope."""

    def __init__(self):
        self.spans, self.problems, self._lock = [], [], threading.Lock()
        collector = self

        class Handler(QuietHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = collector.take(self.path, self.headers, body).SerializeToString()
                self.answer(200, "application/x-protobuf", answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path, headers, body):
        told = {
            "path": (path, "/v1/traces"),
            "content-type": (headers["content-type"], "application/x-protobuf"),
            "content-encoding": (headers["content-encoding"], "gzip"),
        }
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body))
        with self._lock:
            self.problems += [f"export: {what} is {is_!r}" for what, (is_, should) in told.items() if is_ != should]
            for of_resource in request.resource_spans:
                resource = {pair.key: value(pair.value) for pair in of_resource.resource.attributes}
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self.spans.append(Received(span, of_scope.schema_url, of_scope.scope.name, resource))
        return ExportTraceServiceResponse()


def value(any_value):
    """The Python value of an `AnyValue`."""
    return getattr(any_value, any_value.WhichOneof("value"))


def print_table(head, rows):
    """Columns as wide as they have to be: words to the left, numbers to the right."""
    cells = [[str(each) for each in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[at], int | float) for row in rows) for at in range(len(head))]
    for row in cells:
        placed = [
            each.rjust(width) if to_right else each.ljust(width)
            for each, width, to_right in zip(row, widths, right, strict=True)
        ]
        print("  ".join(placed).rstrip())
