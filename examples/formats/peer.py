"""Both ends of a trace in Python: a client that injects, and a service that says what it extracts.

`peer.py FORMAT` answers on a port that it prints:

    GET /libraries           the libraries that know FORMAT and are installed
    POST /call               injects with a library, makes a request, and tells what it sent and got
    anything else            extracts with the library named in `x-extract-with`, and tells the trace, parent, decision
"""

import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FORMAT = sys.argv[1]

# The tracers are here for their propagation alone.
os.environ.update(
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
    DD_REMOTE_CONFIGURATION_ENABLED="false",
    DD_TRACE_STARTUP_LOGS="false",
    DD_TRACE_PROPAGATION_STYLE=FORMAT if FORMAT in ("datadog", "tracecontext", "b3", "b3multi") else "none",
)


def opentelemetry():
    from opentelemetry import baggage, trace
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.propagators.textmap import Getter

    def formats():
        if FORMAT == "tracecontext":
            from opentelemetry.baggage.propagation import W3CBaggagePropagator
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            return [TraceContextTextMapPropagator(), W3CBaggagePropagator()]
        if FORMAT in ("b3", "b3multi"):
            from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat

            return [B3SingleFormat() if FORMAT == "b3" else B3MultiFormat()]
        if FORMAT == "jaeger":
            from opentelemetry.propagators.jaeger import JaegerPropagator

            return [JaegerPropagator()]
        if FORMAT == "xray":
            from opentelemetry.propagators.aws import AwsXRayPropagator

            return [AwsXRayPropagator()]
        raise ImportError

    class Headers(Getter):
        """Headers by name in any case, as the instrumentations of web frameworks read them."""

        def get(self, carrier, key):
            return carrier.get_all(key)

        def keys(self, carrier):
            return [name.lower() for name in carrier.keys()]

    propagator = CompositePropagator(formats())

    def inject(ids):
        flags = trace.TraceFlags(1 if ids["sampled"] else 0)
        state = trace.TraceState([("peer", "python")]) if FORMAT == "tracecontext" else None
        span = trace.SpanContext(int(ids["trace_id"], 16), int(ids["span_id"], 16), False, flags, state)
        context = trace.set_span_in_context(trace.NonRecordingSpan(span))
        if FORMAT in ("tracecontext", "jaeger"):
            context = baggage.set_baggage("tenant", "blue/é", context)
        headers = {}
        propagator.inject(headers, context)
        return headers

    def extract(headers):
        context = propagator.extract(headers, getter=Headers())
        span = trace.get_current_span(context).get_span_context()
        if not span.is_valid:
            return None
        return {
            "trace_id": f"{span.trace_id:032x}",
            "span_id": f"{span.span_id:016x}",
            "sampled": bool(span.trace_flags & 1),
            "state": span.trace_state.to_header() if span.trace_state else "",
            "baggage": dict(baggage.get_all(context)),
        }

    return inject, extract


def ddtrace():
    if FORMAT not in ("datadog", "tracecontext", "b3", "b3multi"):
        raise ImportError
    from ddtrace.propagation.http import HTTPPropagator
    from ddtrace.trace import Context

    def inject(ids):
        headers = {}
        context = Context(
            trace_id=int(ids["trace_id"], 16),
            span_id=int(ids["span_id"], 16),
            sampling_priority=1 if ids["sampled"] else 0,
        )
        HTTPPropagator.inject(context, headers)
        return headers

    def extract(headers):
        context = HTTPPropagator.extract({name.lower(): value for name, value in headers.items()})
        if not context or not context.trace_id or not context.span_id:
            return None
        sampled = context.sampling_priority is not None and context.sampling_priority > 0
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}", "sampled": sampled}

    return inject, extract


def sentry():
    if FORMAT != "sentry-trace":
        raise ImportError
    from sentry_sdk.tracing import Span, Transaction

    def inject(ids):
        span = Span(trace_id=ids["trace_id"], span_id=ids["span_id"], sampled=ids["sampled"])
        return {"sentry-trace": span.to_traceparent(), "baggage": f"sentry-trace_id={ids['trace_id']},sentry-sample_rate=1.0"}

    def extract(headers):
        joined = {name.lower(): value for name, value in headers.items()}
        transaction = Transaction.continue_from_headers(joined)
        return {
            "trace_id": transaction.trace_id,
            "span_id": transaction.parent_span_id,
            "sampled": transaction.parent_sampled,
            "state": joined.get("baggage", ""),
        }

    return inject, extract


def known():
    libraries = {}
    for name, make in {"opentelemetry": opentelemetry, "ddtrace": ddtrace, "sentry-sdk": sentry}.items():
        try:
            libraries[f"{name} (pip)"] = make()
        except ImportError:
            pass
    return libraries


LIBRARIES = known()


class Peer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/libraries":
            return self.answer(list(LIBRARIES))
        _, extract = LIBRARIES[self.headers["x-extract-with"]]
        self.answer(extract(self.headers))

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["content-length"])))
        inject, _ = LIBRARIES[call["library"]]
        sent = inject(call)
        request = urllib.request.Request(call["url"], headers={**sent, "x-extract-with": call["extract_with"]})
        with urllib.request.urlopen(request, timeout=30) as response:
            timing = response.headers["server-timing"]
            self.answer({"sent": sent, "server_timing": timing, "seen": json.load(response)})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
print(f"peer at http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
