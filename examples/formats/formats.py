"""Every format, from each reference library through tracecar to each reference library.

A client makes a context and injects it; tracecar continues it; the service says what it extracts; and tracecar's own
span comes to a collector. All have to be in one trace, each the child of the one before, with the client's decision.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from common import Collector  # noqa: E402

FORMATS = {
    "tracecontext": ["tracecontext", "baggage"],
    "b3": ["b3"],
    "b3multi": ["b3multi"],
    "jaeger": ["jaeger"],
    "xray": ["xray"],
    "datadog": ["datadog"],
    "sentry-trace": ["sentry-trace", "baggage"],
}
# The client of a trace that tracecar begins.
NOBODY = "no context"
# The formats that know trace ids of 64 bits.
SHORT_IDS = ("b3", "b3multi", "jaeger", "datadog")


class Program:
    """A program that is waited for by its own first words, and stopped."""

    def __init__(self, name, ready, command, stream, env, work):
        self.name = name
        self._log = open(work / f"{name}.log", "ab")
        pipes = {"stdout": self._log, "stderr": self._log, stream: subprocess.PIPE}
        self._process = subprocess.Popen([str(part) for part in command], env={**os.environ, **env}, **pipes)
        lines = self._process.stdout if stream == "stdout" else self._process.stderr
        # Whatever hangs is ended, and then there is an end of its output.
        guard = threading.Timer(60, self._process.kill)
        guard.start()
        self.address = None
        for line in lines:
            self._log.write(line)
            if found := re.search(ready, line.decode(errors="replace")):
                self.address = found[1]
                break
        guard.cancel()
        if self.address is None:
            self._log.flush()
            sys.exit(f"FAILED {name} did not start:\n{(work / f'{name}.log').read_text(errors='replace')}")
        threading.Thread(target=shutil.copyfileobj, args=(lines, self._log), daemon=True).start()

    def stop(self):
        self._process.terminate()
        return self._process.wait(60)


def ask(url, value=None):
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def peers_of(name, work):
    """A peer in each language that there is, and which of them has which library."""
    programs = [Program(f"{name}-python", r"peer at (\S+)", [sys.executable, HERE / "peer.py", name], "stdout", {}, work)]
    if shutil.which("node"):
        command = ["node", HERE / "peer.cjs", name]
        programs.append(Program(f"{name}-node", r"peer at (\S+)", command, "stdout", {}, work))
    libraries = {library: peer.address for peer in programs for library in ask(f"{peer.address}/libraries")}
    return programs, libraries


def begin(url, service):
    """A request without any context."""
    request = urllib.request.Request(url, headers={"x-extract-with": service})
    with urllib.request.urlopen(request, timeout=60) as response:
        return {"sent": {}, "server_timing": response.headers["server-timing"], "seen": json.load(response)}


def new_ids(short, sampled):
    bits = 63 if short else 128
    # X-Ray's reference says nothing about time, so any trace id will do.
    return {
        "trace_id": f"{random.getrandbits(bits) | 1:032x}",
        "span_id": f"{random.getrandbits(63) | 1:016x}",
        "sampled": sampled,
    }


def run_format(name, options):
    """Rows of the table: client, service, decision and ids, and what is wrong."""
    peers, libraries = peers_of(name, options.work)
    calls, rows = [], []
    collector = Collector()
    try:
        # Each language's service has a tracecar of its own in front of it.
        cars = {}
        for service in sorted(set(libraries.values())):
            config = options.work / f"{name}.yaml"
            config.write_text(f"propagation:\n  formats: [{', '.join(FORMATS[name])}]\n")
            command = [options.tracecar, "run", "--config", config, "--service", "peer", "--to", service]
            command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
            env = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
            cars[service] = Program(
                f"{name}-tracecar-{len(cars)}", r"passing requests on.*listen=([\d.:]+)", command, "stderr", env, options.work
            )
        kinds = [(False, True), (False, False)] + [(True, True), (True, False)] * (name in SHORT_IDS)
        for client, at in libraries.items():
            for service, behind in libraries.items():
                for short, sampled in kinds:
                    ids = new_ids(short, sampled)
                    call = {"library": client, "extract_with": service, "url": f"http://{cars[behind].address}/", **ids}
                    calls.append((client, service, short, ids, ask(f"{at}/call", call)))
        for service, behind in libraries.items():
            calls.append((NOBODY, service, False, None, begin(f"http://{cars[behind].address}/", service)))
        for car in cars.values():
            # It flushes before it ends, so every span that there will be is there.
            if status := car.stop():
                rows.append((car.name, "", "", [f"ended with status {status}"]))
    finally:
        for peer in peers:
            peer.stop()
    spans = {}
    for received in collector.spans:
        spans.setdefault(received.span.span_id.hex(), []).append(received.span)
    for client, service, short, ids, answer in calls:
        what = "a new trace"
        if ids:
            what = f"{'64' if short else '128'} bit, {'sampled' if ids['sampled'] else 'not sampled'}"
        rows.append((client, service, what, differences(name, ids, answer, spans)))
    exported, wanted = len(collector.spans), sum(ids is None or ids["sampled"] for _, _, _, ids, _ in calls)
    if exported != wanted or collector.problems:
        rows.append(("tracecar", "collector", "", [f"{exported} spans for {wanted} sampled requests", *collector.problems]))
    return sorted(set(libraries)), rows


def differences(name, ids, answer, spans):
    """What does not fit between client, tracecar and service."""
    wrong = []

    def same(what, is_, should):
        if is_ != should:
            wrong.append(f"{what} is {is_!r} and should be {should!r}")

    told = re.match(r"trace;desc=00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$", answer["server_timing"] or "")
    if not told:
        return [f"server-timing is {answer['server_timing']!r}"]
    trace_id, span_id, flags = told.groups()
    # A trace that tracecar begins has the trace id that it told, no parent, and is sampled.
    ids = ids or {"trace_id": trace_id, "span_id": "", "sampled": True}
    same("tracecar's trace id", trace_id, ids["trace_id"])
    same("tracecar's decision", bool(int(flags, 16) & 1), ids["sampled"])
    exported = spans.get(span_id, [])
    same("the number of exported spans", len(exported), int(ids["sampled"]))
    for span in exported:
        same("the exported trace id", span.trace_id.hex(), ids["trace_id"])
        same("the exported parent", span.parent_span_id.hex(), ids["span_id"])
    seen = answer["seen"]
    if seen is None:
        return [*wrong, "the service found no context"]
    same("the service's trace id", seen["trace_id"], ids["trace_id"])
    same("the service's parent", seen["span_id"], span_id)
    same("the service's decision", seen["sampled"], ids["sampled"])
    sent = {key.lower(): value for key, value in answer["sent"].items()}
    if name == "sentry-trace" and "baggage" in sent:
        same("the baggage", seen["state"], sent["baggage"])
    if "baggage" in seen and any(key == "baggage" or key.startswith("uberctx-") for key in sent):
        same("the baggage", seen["baggage"], {"tenant": "blue/é"})
    if "state" in seen and "tracestate" in sent:
        same("the tracestate", seen["state"], sent["tracestate"])
    return wrong


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", required=True, type=Path)
    options.add_argument("--skipped", required=True, type=Path)
    options.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    options = options.parse_args()
    if unknown := set(options.formats) - set(FORMATS):
        sys.exit(f"there is no format {', '.join(sorted(unknown))}: {', '.join(FORMATS)}")

    table, failures, total = [], 0, 0
    for name in options.formats or FORMATS:
        libraries, rows = run_format(name, options)
        if not libraries:
            print(f"SKIPPED {name}: none of its libraries is here", flush=True)
            continue
        for client, service, what, wrong in rows:
            total += 1
            failures += bool(wrong)
            for each in wrong:
                print(f"FAILED {name}, {client} to {service}, {what}: {each}", flush=True)
        for client in [*libraries, NOBODY]:
            of_client = [row for row in rows if row[0] == client]
            cells = []
            for service in libraries:
                cases = [row for row in of_client if row[1] == service]
                good = sum(not wrong for *_, wrong in cases)
                cells.append(f"{service} {good}/{len(cases)}")
            table.append((name, client, ", ".join(cells)))
    widths = [max(len(row[column]) for row in [("format", "client", ""), *table]) for column in (0, 1)]
    print(f"\n{'format':{widths[0]}}  {'client':{widths[1]}}  services behind tracecar, and how many of the cases hold")
    for name, client, cells in table:
        print(f"{name:{widths[0]}}  {client:{widths[1]}}  {cells}")
    print(f"\n{total - failures} of {total} hold")
    sys.exit(failures > 0 or total == 0)


main()
