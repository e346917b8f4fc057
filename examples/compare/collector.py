"""An OTLP receiver: HTTP, protobuf, gzip. It keeps every span with its resource and scope."""

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Received:
    """A span as it came."""

    span: object
    schema: str
    scope: str
    resource: dict


class Collector:
    def __init__(self):
        self.spans, self.problems, self._lock = [], [], threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = collector.take(self.path, self.headers, body).SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

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
