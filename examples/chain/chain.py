"""Drives a chain of services that forward nothing, with tracecar on both sides of each, and scores the traces."""

import argparse
import http.client
import itertools
import json
import re
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import graph
import score
from common import TRACECAR_READY, Collector, Programs, free_ports, print_table

HERE = Path(__file__).parent
CHAIN = ["shop", "orders", "stock", "leaf"]
# Seconds; a little more than `lineage.guess_after`.
REST = 2.5


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--requests", type=int, default=500, metavar="N")
    options.add_argument("--in-flight", type=int, default=4, metavar="K", help="requests at a time")
    options.add_argument(
        "--mode", choices=["ids", "plain"], default="ids", help="whether calls carry an id of the request"
    )
    options.add_argument(
        "--background",
        type=float,
        nargs="?",
        const=5,
        default=0,
        metavar="PER_SECOND",
        help="calls that no request causes, of each service",
    )
    options.add_argument(
        "--late",
        type=float,
        nargs="?",
        const=0.1,
        default=0,
        metavar="SHARE",
        help="share of requests that make another call after they have been answered",
    )
    options.add_argument("--workers", type=int, default=8, help="processes of the shop")
    options.add_argument(
        "--at-least-right",
        type=bound,
        action="append",
        default=[],
        metavar="[WHICH=]PERCENT",
        help="of all calls, or those of a service or an edge: shop=99, 'shop->orders=99'",
    )
    options.add_argument("--at-most-wrong", type=float, metavar="PERCENT")
    options.add_argument(
        "--keep", type=Path, metavar="DIRECTORY", help="where the logs and what the services noted stay"
    )
    options.add_argument("--direct", action="store_true", help="without the way out, for comparison")
    return options.parse_args()


def bound(text):
    which, _, percent = text.rpartition("=")
    return which or None, float(percent)


def settings(name, ports, collector, direct):
    """The configuration of the tracecar of a service. What is JSON is YAML."""
    here = "127.0.0.1"
    config = {
        "service": {"name": name},
        "inbound": [{"listen": f"{here}:{ports[name, 'in']}", "to": f"http://{here}:{ports[name, 'service']}"}],
        "routes": ["/buy/{order}", "/orders/{number}", "/stock/{item}", "/leaf/{item}"],
        # No span may be lost for want of room: the collector shares this machine with everything else.
        "export": {"otlp": {"endpoint": collector.url, "queue": {"schedule_delay": "500ms"}}, "console": "off"},
        "admin": {"listen": f"{here}:{ports[name, 'admin']}"},
        # All of them share the processors of one machine, so a look may have to wait for one.
        "lineage": {"process_budget": "50ms"},
    }
    after = dict(itertools.pairwise(CHAIN)).get(name)
    if after and not direct:
        config["outbound"] = {
            "proxy": f"{here}:{ports[name, 'proxy']}",
            "mapped": [
                {
                    "listen": f"{here}:{ports[name, 'mapped']}",
                    "to": f"http://{here}:{ports[after, 'in']}",
                    "name": after,
                }
            ],
        }
    return json.dumps(config, indent=2)


def environment(options, name, ports):
    """What the services are told: the only thing that knows of tracecar, by HTTP_PROXY or a base URL."""
    after = dict(itertools.pairwise(CHAIN)).get(name)
    told = {
        "PORT": ports[name, "service"],
        "TRUTH": truth_file(options, name),
        "WEB_CONCURRENCY": options.workers,
        "CALLS": options.mode,
        "LATE": options.late,
        "BACKGROUND": options.background,
        # Whatever proxy this machine has is not for loopback.
        "HTTP_PROXY": "",
        "http_proxy": "",
        "ALL_PROXY": "",
        "all_proxy": "",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    if after is None:
        return told
    url = f"http://127.0.0.1:{ports[after, 'in']}"
    if options.direct:
        return told | {f"{after.upper()}_URL": url}
    if name == "stock":
        # Node's fetch asks for no proxy, so its base URL is a listener that stands for the leaf.
        return told | {"LEAF_URL": f"http://127.0.0.1:{ports[name, 'mapped']}"}
    proxy = f"http://127.0.0.1:{ports[name, 'proxy']}"
    return told | {f"{after.upper()}_URL": url, "HTTP_PROXY": proxy, "http_proxy": proxy}


def truth_file(options, name):
    return options.work / f"{name}.truth"


def start(options, programs, ports, collector):
    commands = {
        "shop": [
            r"Listening at: http://([\d.]+):(\d+)",
            sys.executable,
            "-m",
            "gunicorn",
            "--no-control-socket",
            "--bind",
            f"127.0.0.1:{ports['shop', 'service']}",
            "--worker-class",
            "sync",
            "--chdir",
            HERE,
            "shop:app",
        ],
        # The server of one process wants a list of its own: WEB_CONCURRENCY is understood by both.
        "orders": [
            r"running on http://([\d.]+):(\d+)",
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            HERE,
            "--port",
            ports["orders", "service"],
            "--workers",
            "1",
            "--no-access-log",
            "--no-use-colors",
            "orders:app",
        ],
        "stock": [r"listening at http://([\d.]+):(\d+)", "node", HERE / "stock.mjs"],
        "leaf": [r"listening at http://([\d.]+):(\d+)", "node", HERE / "leaf.mjs"],
    }
    # From the far end: who calls in the background begins at once, and what it calls should be there.
    for name in reversed(CHAIN):
        truth_file(options, name).touch()
        config = options.work / f"{name}.yaml"
        config.write_text(settings(name, ports, collector, options.direct))
        programs.start(f"tracecar-{name}", TRACECAR_READY, options.tracecar, "run", "--config", config)
        programs.start(name, *commands[name], **environment(options, name, ports))


def rest():
    """Leaves the services alone for as long as tracecar watches them at rest, before it decides by who is there."""
    time.sleep(REST)


def drive(options, port):
    """Makes the requests; returns what is known of each: the id that was served, and `Server-Timing`."""
    answers, failures, left, lock = [], [], itertools.count(1), threading.Lock()

    def one_after_another():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while next(left) <= options.requests:
            try:
                connection.request("GET", f"/buy/{uuid.uuid4()}")
                response = connection.getresponse()
                response.read()
            except OSError as error:
                return failures.append(f"a request failed: {error!r}")
            with lock:
                answers.append((response.headers["x-served"], response.headers["server-timing"]))
                if response.status != 200:
                    failures.append(f"a request was answered with {response.status}")
        return connection.close()

    threads = [threading.Thread(target=one_after_another) for _ in range(options.in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(served, timing) for served, timing in answers if served], failures


def tree(spans, root):
    """The lines of a trace, each with how the parent of the call was found."""
    below = {}
    for span in spans:
        if span.kind == "SERVER" and span.key[0] == root[0]:
            below.setdefault(span.parent, []).append(span)
    by_key = {span.key: span for span in spans}
    clients = {span.parent: [] for span in spans}
    for span in spans:
        if span.kind == "CLIENT":
            clients[span.parent] = [*clients.get(span.parent, []), span]

    def lines(span, depth):
        yield f"{'   ' * depth}{span.service}  {span.span.name}"
        for client in clients.get(span.key, []):
            said = client.attributes
            how = f"{said.get('tracecar.lineage.method')} {said.get('tracecar.lineage.confidence', '')}"
            for server in below.get(client.key, []):
                first, *rest = lines(server, depth + 1)
                yield f"{first}  (found by {how.strip()})"
                yield from rest

    return list(lines(by_key[root], 0)) if root in by_key else []


def report(options, collector, requests, took):
    spans = {span.key: span for span in collector.spans}
    calls = score.calls(requests, {ends: truth_file(options, ends[0]) for ends in itertools.pairwise(CHAIN)})
    judged = [(call, score.judge(call, spans)) for call in calls]
    answered = {call.reached for call in calls} | {score.span_in(timing) for _, timing in requests}
    strange = [span.key for span in collector.spans if span.kind == "SERVER" and span.key not in answered]

    for line in tree(collector.spans, score.span_in(requests[0][1])):
        print(line)
    print(f"\n{len(requests)} requests in {took:.1f} s, {len(calls)} calls, {len(collector.spans)} spans")
    print(f"{score.in_flight(collector.spans):.1f} requests were open on average in a service that made a call\n")
    print_table(
        ["edge", "kind", "method", *score.COLUMNS],
        list(score.rows(judged, lambda call, verdict: (call.edge, call.kind, verdict.method))),
    )
    print()
    print_table(["method", *score.COLUMNS], list(score.rows(judged, lambda _, verdict: (verdict.method,))))
    print()
    print_table(["", *score.COLUMNS], list(score.rows(judged, lambda *_: ("all",))))
    whole = score.whole(requests, judged)
    print(f"\nwhole traces: {whole} of {len(requests)}, {score.share(whole, len(requests))} %\n")
    edges, _ = graph.graph(collector.spans)
    print_table(
        ["client", "server", "connection", "requests", "failed"],
        [[*ends, edge.requests, edge.failed] for ends, edge in sorted(edges.items())],
    )

    expected = Counter((call.caller, call.callee) for call in calls)
    expected["user", "shop"] = len(requests)
    problems = Counter(verdict.problem for _, verdict in judged if verdict.problem)
    failed = Counter(failure(span) for span in collector.spans if span.failed)
    return (
        [f"{count} calls: {problem}" for problem, count in problems.items()]
        + [f"{count} spans: {text}" for text, count in failed.most_common(5)]
        + ([f"{len(strange)} SERVER spans of calls that no service knows of"] if strange else [])
        + graph.problems(collector.spans, expected)
        + score.missed(judged, options.at_least_right, options.at_most_wrong)
    )


def failure(span):
    """What a span that failed says of it."""
    said = [span.attributes.get(name) for name in ("error.type", "tracecar.outcome", "tracecar.detail")]
    return f"{span.kind} of {span.service}: {', '.join(str(each) for each in said if each)}"


def lookups(port):
    """How looks for the process that made a call have ended, as tracecar counts them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        page = response.read().decode()
    found = re.findall(r'^tracecar_process_lookups\w*{.*?result="(\w+)".*?} (\d+)', page, re.MULTILINE)
    return ", ".join(f"{count} {result}" for result, count in found) or "none"


def main():
    options = parse()
    parts = ["service", "in", "proxy", "mapped", "admin"]
    names = list(itertools.product(CHAIN, parts))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    if options.keep:
        options.work = options.keep.resolve()
        options.work.mkdir(parents=True)
    collector = Collector()
    with Programs(options.work) as programs:
        start(options, programs, ports, collector)
        rest()
        began = time.monotonic()
        requests, problems = drive(options, ports["shop", "in"])
        took = time.monotonic() - began
        looked = lookups(ports["shop", "admin"])
        # Each service ends the calls that it has begun before it ends, so those that it calls have to outlive it; and
        # tracecar sends what it has before it ends, so after this no span is missing that will not always be.
        for name in CHAIN:
            # Some end by the signal that they were sent; that is their business.
            programs.stop(name)
        problems += programs.stop("tracecar")
    print(f"looks into the process table beside the shop: {looked}")
    if not requests:
        raise SystemExit("\n".join(dict.fromkeys(problems)) or "no request was answered")
    problems = [f"{count} x {text}" for text, count in Counter(problems).items()] + collector.problems
    problems += report(options, collector, requests, took)
    print()
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print("all good")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
