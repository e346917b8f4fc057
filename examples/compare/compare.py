"""Makes the same requests to unmodified services directly and through tracecar, and says what differs.

Nothing may: neither status, nor any header, nor a byte of a body, but for what tracecar is documented to add. Each
request through tracecar also has to leave exactly one span that says of it what OpenTelemetry wants said.
"""

import argparse
import json
import random
import re
import shutil
import sys
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path

import brotli

import semantics
import wire
from cases import PARENT, TEN, TRACEPARENT, cases
from clients import HOST, Browser, Curl, websocket
from common import TRACECAR_READY, Collector, Programs, value
from tap import Tap, lower

HERE = Path(__file__).parent
# What concerns one connection is not passed on by an intermediary (RFC 9110 section 7.6.1).
HOP = {"connection", "keep-alive"}
# Drawn anew by every client or server.
RANDOM = {"date", "sec-websocket-key", "sec-websocket-accept"}
ADDED_TO_REQUESTS = ("traceparent", "x-correlation-id")
ROUTES = {r"/status/[^/]+": "/status/{code}", r"/items/[^/]+": "/items/{item}", r"/ws": "/ws"}


@dataclass
class Way:
    """One way to a service: the port to talk to, and the tap that hears what the service is told."""

    port: int
    tap: Tap
    browser: Browser
    # None where nobody speaks HTTP/2.
    http2: Browser | None

    @classmethod
    def new(cls, port, tap, http2):
        return cls(port, tap, Browser(port), Browser(port, http2=True) if http2 else None)


class Comparison:
    def __init__(self, work, collector):
        self.curl, self.collector, self.spans_seen, self.notes = Curl(work), collector, set(), {}
        self.expected = []

    def run(self, case, direct, through):
        """Runs a case both ways, and returns the number of requests and every difference."""
        plain, traced = self.ask(case, direct, False), self.ask(case, through, True)
        differences = []
        if len(plain) != len(traced):
            differences.append(f"directly {len(plain)} responses, through tracecar {len(traced)}")
        sent_plain, sent_traced = direct.tap.requests(label(case)), through.tap.requests(label(case))
        if len(sent_plain) != len(sent_traced):
            differences.append(f"directly {len(sent_plain)} requests sent, through tracecar {len(sent_traced)}")
        pairs = zip(sent_plain, sent_traced, plain, traced)
        for number, (sent, forwarded, answer, passed) in enumerate(pairs, 1):
            told = self.requests(case, sent, forwarded) + self.answers(case, answer, passed)
            self.expected.append((case, number, sent, forwarded, passed))
            prefix = f"{number}: " if len(plain) > 1 else ""
            differences += [prefix + difference for difference in told]
        return len(traced), differences

    def ask(self, case, way, traced):
        if case.client == "curl":
            arguments = case.run
            if case.http2:
                # `Expect` is not for HTTP/2, so curl would send it in one case only.
                arguments = [a for a in case.run if traced or a != "--http2-prior-knowledge"] + ["--header", "Expect:"]
            return self.curl(way.port, label(case), arguments)
        if case.client == "websocket":
            return websocket(way.port, label(case), case.path, case.run, case.options)
        browser = (case.http2 and way.http2) or way.browser
        browser.case = label(case)
        # A session per case has cookies of its own; its connections are those of the browser, kept alive.
        case.run(browser.session())
        return browser.take()

    def requests(self, case, sent, forwarded):
        """What the service was told."""
        differences = []
        added = [(n, v) for n, v in forwarded.headers if n.lower() in ADDED_TO_REQUESTS]
        rest = [(n, v) for n, v in forwarded.headers if n.lower() not in ADDED_TO_REQUESTS]
        own = [(n, v) for n, v in sent.headers if n.lower() not in ADDED_TO_REQUESTS]
        names = sorted(name.lower() for name, _ in added)
        has_correlation = any(name == "x-request-id" for name, _ in lower(sent.headers))
        should = ["traceparent"] if has_correlation else ["traceparent", "x-correlation-id"]
        if names != should:
            differences.append(f"request: added {added}")
        # An intermediary speaks its own version, to both sides (RFC 9112 section 2.3).
        if forwarded.version != "HTTP/1.1":
            differences.append(f"request: version {forwarded.version!r}")
        for part in ("method", "target", "framing"):
            if getattr(sent, part) != getattr(forwarded, part):
                differences.append(f"request: {part} {getattr(sent, part)!r} became {getattr(forwarded, part)!r}")
        if normal(case, sent.body) != normal(case, forwarded.body):
            differences.append(f"request: body of {len(sent.body)} bytes became one of {len(forwarded.body)}")
        return differences + self.headers("request", case, own, rest)

    def answers(self, case, answer, passed):
        """What the caller got."""
        differences = []
        for part in ("status", "reason", "version"):
            before, after = getattr(answer, part), getattr(passed, part)
            if before != after and part == "version":
                self.note(f"response: {part} {before} became {after}")
            elif before != after and not (case.http2 and part == "reason"):
                differences.append(f"response: {part} {before!r} became {after!r}")
        before, after = [[status for status, _ in each.interim] for each in (answer, passed)]
        if before != after:
            differences.append(f"response: informational {before} became {after}")
        found = semantics.ids(passed)
        if not found:
            return [*differences, f"response: Server-Timing is {passed.all('server-timing')}"]
        rest = [line for line in passed.headers if not semantics.TIMING.fullmatch(line[1])]
        echoed = [line for line in rest if line[0].lower() in ("x-correlation-id", "x-request-id")]
        if len(echoed) != 1:
            differences.append(f"response: correlation ids {echoed}")
        rest = [line for line in rest if line not in echoed]
        differences += self.headers("response", case, answer.headers, rest)
        if content(case, answer) != content(case, passed):
            differences.append(f"response: body {brief(answer.body)} became {brief(passed.body)}")
        for which, each in (("directly", answer), ("through tracecar", passed)):
            if case.spread and each.total - each.first < case.spread:
                differences.append(f"response: {which} the body came at once, after {each.first:.2f} s")
        return differences

    def headers(self, what, case, before, after):
        """Whether two lists of header lines say the same, name for name, line for line."""
        ignored = HOP | RANDOM | set(case.random)
        if case.echo and what == "response":
            # The body is longer by what was added.
            ignored |= {"content-length"}
        if case.http2:
            # Names are lower case there, and content needs no framing of its own.
            before, after = [[line for line in lower(side) if line[0] != "transfer-encoding"] for side in (before, after)]
        if case.client == "websocket" and what == "response":
            ignored |= {"upgrade"}
        for name in HOP:
            lines = [[v.lower() for n, v in lower(side) if n == name] for side in (before, after)]
            if lines[0] != lines[1]:
                self.note(f"{what}: {name} {lines[0]} became {lines[1]}")
        names = sorted({n for n, _ in lower(before)} | {n for n, _ in lower(after)})
        differences = []
        for name in names:
            mine, theirs = [[line for line in side if line[0].lower() == name] for side in (before, after)]
            if name in ignored:
                if name not in HOP and len(mine) != len(theirs):
                    differences.append(f"{what}: {mine} became {theirs}")
                continue
            mine, theirs = [[(n, normal(case, v.encode())) for n, v in side] for side in (mine, theirs)]
            if mine != theirs:
                differences.append(f"{what}: {mine} became {theirs}")
        order = [[n.lower() for n, _ in side if n.lower() not in ignored] for side in (before, after)]
        if not differences and order[0] != order[1]:
            self.note(f"{what}: lines of different names changed places")
        return differences

    def note(self, text):
        self.notes[text] = self.notes.get(text, 0) + 1

    def spans(self):
        """Compares every span to its request. All spans have to be here by now."""
        by_id = {}
        for received in self.collector.spans:
            key = received.span.trace_id.hex(), received.span.span_id.hex()
            by_id.setdefault(key, []).append(received)
        for case, number, sent, forwarded, passed in self.expected:
            found = semantics.ids(passed)
            prefix = f"{number}: "
            if not found:
                continue
            trace, span, flags = found
            mine = by_id.pop((trace, span), [])
            if len(mine) != 1:
                yield case, f"{prefix}{len(mine)} spans"
                continue
            problems = semantics.violations(mine[0], flags, expected(case, sent, forwarded, passed))
            problems += correlations(trace, mine[0], sent, forwarded, passed)
            told = dict(lower(forwarded.headers)).get("traceparent")
            if told != f"00-{trace}-{span}-{flags}":
                problems.append(f"the service was told {told}, and Server-Timing says {trace} {span} {flags}")
            if case.parent and (trace, flags) != (PARENT[0], "01"):
                problems.append(f"the caller's trace {TRACEPARENT} was not continued: {found}")
            for problem in problems:
                yield case, prefix + problem
        for key, extra in by_id.items():
            yield None, f"{len(extra)} spans {key} of no request: {[each.span.name for each in extra]}"


def expected(case, sent, forwarded, passed):
    of = dict(lower(sent.headers))
    path = sent.target.partition("?")[0]
    route = next((route for pattern, route in ROUTES.items() if re.fullmatch(pattern, path)), None)
    # The request's own: an answer is of the version of whoever answers (RFC 9112 section 2.3).
    version = "2" if case.http2 else "1.0" if case.client == "curl" and "--http1.0" in case.run else "1.1"
    whole = case.client != "websocket" and passed.body is not None
    # curl --compressed hands out what it has decoded.
    whole = whole and not (case.client == "curl" and "--compressed" in case.run)
    return semantics.Expected(
        method=sent.method,
        # A span holds text; what is not ASCII is taken to be UTF-8.
        target=sent.target.encode("latin-1").decode(errors="replace"),
        host=of.get("host", HOST),
        user_agent=of.get("user-agent"),
        version=version,
        status=passed.status,
        route=route,
        port=passed.port,
        parent=PARENT[1] if case.parent else "",
        sent_bytes=None if case.early or case.client == "websocket" else len(forwarded.body),
        received_bytes=len(passed.body) if whole else None,
        took=passed.total,
    )


def correlations(trace, received, sent, forwarded, passed):
    """The id that came in, or else the trace id, has to be the same everywhere."""
    name, should = next((each for each in lower(sent.headers) if each[0] == "x-request-id"), ("x-correlation-id", trace))
    told = {pair.key: value(pair.value) for pair in received.span.attributes}
    places = {
        "the service": [given for other, given in lower(forwarded.headers) if other == name],
        "the caller": passed.all(name),
        "the span": [told.get("tracecar.correlation_id")],
    }
    return [f"correlation id: {place} has {is_}, not {should}" for place, is_ in places.items() if is_ != [should]]


def label(case):
    return f"{case.service} {case.client} {case.name}"


def normal(case, data):
    return re.sub(case.volatile.encode(), b"~", data) if case.volatile else data


def content(case, answer):
    """A body, without what an echo repeats of the additions."""
    if answer.body is None:
        return None
    body = normal(case, answer.body)
    if not case.echo:
        return body
    coding = "".join(answer.all("content-encoding"))
    try:
        if coding == "br":
            body = brotli.decompress(body)
        elif coding:
            # gzip as well as deflate.
            body = zlib.decompress(body, wbits=zlib.MAX_WBITS | 32)
    except (brotli.error, zlib.error):
        # curl has decoded it.
        pass
    try:
        return [json.dumps(without(json.loads(line)), sort_keys=True) for line in documents(body)]
    except ValueError:
        return body


def documents(body):
    """One JSON document, or one per line."""
    try:
        json.loads(body)
        return [body]
    except ValueError:
        return body.splitlines()


def without(value):
    """An echo without the additions, and without what concerns one connection only."""
    not_repeated = HOP.union(ADDED_TO_REQUESTS)
    if isinstance(value, dict):
        return {key: without(each) for key, each in value.items() if key.lower() not in not_repeated}
    if isinstance(value, list):
        return sorted_pairs([without(each) for each in value if not (is_pair(each) and each[0] in not_repeated)])
    return value


def is_pair(value):
    return isinstance(value, list) and len(value) == 2


def sorted_pairs(values):
    """A list of header lines by name; lines of one name stay in their order. Any other list is left alone."""
    return sorted(values, key=lambda pair: pair[0]) if values and all(map(is_pair, values)) else values


def where(error):
    """The lines of ours that an error came through."""
    mine = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == HERE]
    return "; ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in mine)


def brief(body):
    if body is None or len(body) <= 300:
        return body
    return f"{body[:200]!r}… of {len(body)} bytes"


def table(rows):
    print(f"\n{'service':<8} {'client':<10} {'case':<36} {'requests':>8}  result")
    for case, requests, differences in rows:
        result = "same" if not differences else f"{len(differences)} DIFFERENT"
        if case.known:
            result += f" (known: {case.known})"
        print(f"{case.service:<8} {case.client:<10} {case.name:<36} {requests:>8}  {result}")
        for difference in differences:
            print(f"{'':19}  - {difference}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their name")
    options.add_argument("--quick", action="store_true", help="leave out what takes long")
    options.add_argument("--strict", action="store_true", help="fail for known differences too")
    options = options.parse_args()
    files = options.work / "compare"
    files.mkdir()
    source = random.Random(1)
    (files / TEN).write_bytes(source.randbytes(10 * 1024 * 1024))
    (files / "small.bin").write_bytes(source.randbytes(3000))
    if shutil.which("curl") is None:
        raise SystemExit("there is no curl")

    collector = Collector()
    with Programs(files) as programs:
        services = {
            "httpbin": programs.start(
                "httpbin", r"Listening at: http://([\d.]+):(\d+)", sys.executable, "-m", "gunicorn", "--bind",
                "127.0.0.1:0", "--no-control-socket", "--worker-class", "gthread", "--threads", "8",
                "--keep-alive", "30", "httpbin:app",
            ),
            "app": programs.start(
                "app", r"running on http://([\d.]+):(\d+)", sys.executable, "-m", "uvicorn", "--app-dir", HERE,
                "--host", "127.0.0.1", "--port", "0", "--no-access-log", "--no-use-colors", "app:app",
                COMPARE_FILE=files / TEN,
            ),
        }
        ways = {}
        for service, address in services.items():
            before, behind = Tap(*address), Tap(*address)
            front = programs.start(
                f"tracecar-{service}", TRACECAR_READY, options.tracecar, "run",
                "--config", HERE / "tracecar.yaml", "--service", "compared", "--listen", "127.0.0.1:0", "--admin",
                "127.0.0.1:0", "--to", f"http://127.0.0.1:{behind.port}",
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="200",
            )
            ways[service] = Way.new(before.port, before, False), Way.new(front[1], behind, True)
        bare = wire.ways(programs, files, options.tracecar, {name: port for name, (_, port) in services.items()})
        return compare(options, files, collector, ways, bare, programs)


def compare(options, files, collector, ways, bare, programs):
    comparison, rows = Comparison(files, collector), []
    for case in cases(files):
        if options.only not in label(case) or (options.quick and case.long):
            continue
        try:
            requests, differences = comparison.run(case, *ways[case.service])
        except Exception as error:  # noqa: BLE001: one case that fails should not hide the others
            requests, differences = 0, [f"{error!r} {where(error)}"]
        rows.append((case, requests, differences))
    for case in wire.cases(bare):
        if options.only in label(case):
            rows.append((case, 1, wire.run(case, bare[case.service])))
    for direct, through in ways.values():
        for browser in (direct.browser, through.browser, through.http2):
            browser.close()
    # tracecar sends what it has before it ends, so after this no span is missing that will not always be.
    others = programs.stop("tracecar") + collector.problems
    by_case = {id(case): differences for case, _, differences in rows}
    for case, problem in comparison.spans():
        (by_case[id(case)] if case else others).append(problem)
    table(rows)
    requests = sum(requests for case, requests, _ in rows if case.client != "bytes")
    print(f"\n{requests} requests of programs through tracecar, {len(collector.spans)} spans")
    print("\nallowed, since it concerns one connection or means nothing:")
    for text, count in sorted(comparison.notes.items()):
        print(f"  {count:>4} x {text}")
    for problem in others:
        print(f"DIFFERENT: {problem}")
    different = [case for case, _, differences in rows if differences]
    failed = [case for case in different if options.strict or not case.known]
    print(
        f"\n{len(rows) - len(different)} cases the same, {len(different)} different "
        f"({len(different) - len(failed)} of them known), {len(others)} other problems"
    )
    return 1 if failed or others or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
