"""What a SERVER span has to say of a request whose caller and service are both known.

The rules are those of the OpenTelemetry semantic conventions 1.44 for HTTP server spans.
"""

from dataclasses import dataclass

from common import TIMING, value

KNOWN = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
REMOTE_KNOWN, REMOTE = 0x100, 0x200
KIND_SERVER, UNSET, ERROR = 2, 0, 2
# Every other attribute has to be below `tracecar.`; what is opt-in in the conventions is not expected.
ATTRIBUTES = {
    "http.request.method", "http.request.method_original", "http.response.status_code", "http.route", "error.type",
    "url.scheme", "url.path", "url.query", "server.address", "server.port", "client.address", "network.peer.address",
    "network.peer.port", "network.protocol.version", "user_agent.original",
}


@dataclass
class Expected:
    """What both ends of a request know of it."""

    method: str
    target: str
    host: str
    user_agent: str | None
    version: str
    status: int
    route: str | None
    port: int | None
    parent: str
    sent_bytes: int | None
    received_bytes: int | None
    took: float | None


def ids(answer):
    """Trace id, span id and flags out of `Server-Timing`; None unless there is exactly one such entry."""
    found = [match for line in answer.all("server-timing") if (match := TIMING.fullmatch(line))]
    return found[0].groups() if len(found) == 1 else None


def violations(received, flags, expected):
    """Every rule that a span breaks, with what it says."""
    span = received.span
    keys = [pair.key for pair in span.attributes]
    has = {pair.key: value(pair.value) for pair in span.attributes}
    path, question, query = expected.target.partition("?")
    known = expected.method in KNOWN
    failed = expected.status >= 500
    method = expected.method if known else "HTTP"
    host, _, port = expected.host.partition(":")
    said = span.status
    wants = [
        ("kind (SEM-1)", span.kind, KIND_SERVER),
        ("name (SEM-3 to SEM-6)", span.name, f"{method} {expected.route}" if expected.route else method),
        ("duplicate keys", sorted(keys), sorted(set(keys))),
        ("http.request.method (SEM-20)", has.get("http.request.method"), expected.method if known else "_OTHER"),
        ("http.request.method_original (SEM-24)", has.get("http.request.method_original"), None if known else expected.method),
        ("url.path (SEM-21)", has.get("url.path"), path),
        ("url.scheme (SEM-22)", has.get("url.scheme"), "http"),
        ("error.type (SEM-23, SEM-62, SEM-63)", has.get("error.type"), str(expected.status) if failed else None),
        ("http.response.status_code (SEM-25)", has.get("http.response.status_code"), expected.status),
        ("http.route (SEM-26)", has.get("http.route"), expected.route),
        ("network.protocol.name (SEM-27)", has.get("network.protocol.name"), None),
        ("server.port (SEM-28)", has.get("server.port"), int(port) if port else None),
        ("url.query (SEM-29)", has.get("url.query"), redacted(query) if question else None),
        ("client.address (SEM-30)", has.get("client.address"), "127.0.0.1"),
        ("network.peer.address (SEM-31)", has.get("network.peer.address"), "127.0.0.1"),
        ("network.protocol.version (SEM-32)", has.get("network.protocol.version"), expected.version),
        ("server.address (SEM-33)", has.get("server.address"), host),
        ("user_agent.original (SEM-34)", has.get("user_agent.original"), expected.user_agent),
        ("other attributes (SEM-35)", [k for k in keys if k not in ATTRIBUTES and not k.startswith("tracecar.")], []),
        ("status (SEM-60 to SEM-64)", said.code, ERROR if failed else UNSET),
        ("status description (SEM-66)", said.message, ""),
        ("flags", span.flags & 0xFF, int(flags, 16)),
        ("flags: remoteness known", span.flags & REMOTE_KNOWN, REMOTE_KNOWN),
        ("flags: parent is remote", bool(span.flags & REMOTE), bool(expected.parent)),
        ("parent", span.parent_span_id.hex(), expected.parent),
        ("scope's schema (SEM-11)", received.schema, "https://opentelemetry.io/schemas/1.44.0"),
        ("service.name (RES-1)", received.resource.get("service.name"), "compared"),
        ("tracecar.outcome", has.get("tracecar.outcome"), "complete"),
    ]
    if expected.port is not None:
        wants.append(("network.peer.port (SEM-31)", has.get("network.peer.port"), expected.port))
    if expected.sent_bytes is not None:
        wants.append(("tracecar.request.bytes", has.get("tracecar.request.bytes"), expected.sent_bytes))
    if expected.received_bytes is not None:
        wants.append(("tracecar.response.bytes", has.get("tracecar.response.bytes"), expected.received_bytes))
    broken = [f"span: {rule}: is {is_!r}, should be {should!r}" for rule, is_, should in wants if is_ != should]
    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    if seconds < 0 or (expected.took is not None and seconds > expected.took + 0.05):
        broken.append(f"span: it took {seconds} s, and the caller waited {expected.took} s")
    return broken


def redacted(query):
    """A query as spans show it by default: keys and no values. What has no `=` may be a value, and is hidden too."""

    def hide(part):
        key, equals, given = part.partition("=")
        if equals:
            return f"{key}=REDACTED" if given else part
        return "REDACTED" if part else part

    return "&".join(map(hide, query.split("&")))
