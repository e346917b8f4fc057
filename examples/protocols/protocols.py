"""Real clients in every protocol that tracecar speaks: does each get what it would get without tracecar?"""

import argparse
import sys
import traceback
from pathlib import Path

import delay
import programs as real
import sockets
from common import TRACECAR_READY, Collector, Programs, print_table
from ways import Way, start

# What an event may take longer through tracecar, in milliseconds: medians, on a machine that does other things as well.
ADDED = 2.0


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their names")
    options.add_argument("--quick", action="store_true", help="fewer requests, and no browser")
    options.add_argument("--direct", action="store_true", help="without tracecar, to see that clients and service work")
    return options.parse_args()


def cases(options, ways, proxy, service):
    """Names, and functions that return what is wrong, or None where something cannot be had."""
    for way in ways:
        yield way, "curl: 10 MiB down", lambda way=way: real.curl_gets(way)
        yield way, "curl: 5 MiB up, in five ways", lambda way=way: real.curl_sends(way)
        yield way, "curl: head", lambda way=way: real.curl_heads(way)
        # curl 7.88 can do that with no server that speaks HTTP/2 without TLS.
        if way.authority or not way.http2:
            yield way, "curl: 100 at once", lambda way=way: real.curl_in_parallel(way)
        if way.certificate:
            yield way, "curl: no certificate", lambda way=way: real.refused_without_certificate(way)
        else:
            count = 400 if options.quick else 5000
            yield way, f"h2load: {count} requests", lambda way=way, count=count: real.h2load(way, count)
        if way.http2:
            yield way, "websocket: RFC 8441", lambda way=way: sockets.over_http2(way)
        else:
            yield way, "websocket: messages", lambda way=way: sockets.talks(way, None)
            yield way, "websocket: messages, compressed", lambda way=way: sockets.talks(way, "deflate")
            yield way, "websocket: pings", lambda way=way: sockets.pings(way)
            yield way, "websocket: close codes", lambda way=way: sockets.closes(way)
            yield way, "websocket: subprotocol", lambda way=way: sockets.subprotocols(way)
            yield way, "websocket: 50 at once", lambda way=way: sockets.many(way)
        # A browser speaks HTTP/2 wherever there is TLS, and never without.
        if not options.quick and not way.certificate and way.http2 == bool(way.authority):
            yield way, "browser: streams and sockets", lambda way=way: real.browser(way, service, options.work)
    if proxy:
        yield None, "curl: a tunnel by CONNECT", lambda: real.curl_by_connect(proxy, service)


def run(case):
    """What became of a case, in a word, and what is wrong."""
    try:
        problems = case()
    except sockets.NotOffered:
        return "not offered", []
    except Exception as error:  # noqa: BLE001: one case that fails should not hide the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "FAILED", [f"{error!r} in {Path(where.filename).name}:{where.lineno}"]
    if problems is None:
        return "SKIPPED", []
    return ("FAILED" if problems else "passed"), problems


def streams(options, programs, collector):
    """Delays of events, directly and through tracecar: rows of a table, and what is wrong."""
    ticker = delay.Ticker(30 if options.quick else delay.EVENTS)
    to = f"http://127.0.0.1:{ticker.port}"
    _, port = programs.start(
        "tracecar-events", TRACECAR_READY, options.tracecar, "run", "--service", "events", "--to", to, "--listen",
        "127.0.0.1:0", "--admin", "127.0.0.1:0", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    )
    plain, traced = delay.by_socket(ticker.port), delay.by_socket(port)
    measured = {
        "HTTP/1.1, directly": plain,
        "HTTP/1.1, through tracecar": traced,
        "curl, directly": delay.by_curl(to, "--http1.1"),
        "curl, through tracecar": delay.by_curl(f"http://127.0.0.1:{port}", "--http1.1"),
        "curl, through tracecar by HTTP/2": delay.by_curl(f"http://127.0.0.1:{port}", "--http2-prior-knowledge"),
    }
    rows = [[name, len(each), f"{delay.median(each):.3f} ms", f"{delay.worst(each):.3f} ms"] for name, each in measured.items() if each]
    expected = 30 if options.quick else delay.EVENTS
    problems = [f"{name}: {len(each)} events of {expected} came" for name, each in measured.items() if len(each) != expected]
    for before, after in ((0, 1), (2, 3), (2, 4)):
        first, second = list(measured.values())[before], list(measured.values())[after]
        if first and second and delay.median(second) - delay.median(first) > ADDED:
            problems.append(f"{list(measured)[after]}: {delay.median(second) - delay.median(first):.3f} ms more in the median")
    return rows, problems


def main():
    options = parse()
    collector, failed = Collector(), 0
    with Programs(options.work) as programs:
        _, service = programs.start(
            "service", r"running on http://([\d.]+):(\d+)", sys.executable, "-m", "uvicorn", "--app-dir", Path(__file__).parent,
            "--host", "127.0.0.1", "--port", "0", "--no-access-log", "--no-use-colors", "--ws-max-size", 16 << 20, "service:app",
        )
        if options.direct:
            ways, proxy, missing = [Way("http/1.1", service)], None, ""
        else:
            ways, proxy, missing = start(programs, options, collector, service)
        rows, complaints = [], []
        for way, name, case in cases(options, ways, proxy, service):
            where = way.name if way else "proxy"
            if options.only not in f"{where} {name}":
                continue
            result, problems = run(case)
            rows.append([where, name, result])
            complaints += [f"{where} {name}: {problem}" for problem in problems]
            failed += result == "FAILED"
        print_table(["way", "case", "result"], rows)
        if not options.only and not options.direct:
            delays, late = streams(options, programs, collector)
            print("\nfrom the service's write of an event to the caller:")
            print_table(["", "events", "median", "p99"], delays)
            complaints += late
            failed += bool(late)
        # They export what they have before they end.
        ended = programs.stop("tracecar")
    if missing:
        print(f"SKIPPED https and mtls: {missing}")
    for each in complaints + ended + collector.problems:
        print(f"FAILED {each}")
    print(f"\n{sum(row[2] == 'passed' for row in rows)} passed, {failed} failed, "
          f"{sum(row[2] == 'SKIPPED' for row in rows)} skipped; {len(collector.spans)} spans")
    return 1 if failed or ended or collector.problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
