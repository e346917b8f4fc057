"""An app with two dependencies, one of which gets slower: does `/slow` name it, and else nothing?"""

import argparse
import http.client
import itertools
import json
import random
import sys
import threading
import time
import uuid
from http.server import ThreadingHTTPServer
from pathlib import Path

import failures
import judge
from common import Collector, Programs, QuietHandler, free_ports
from driver import drive, unexpected
from outage import Asked
from sidecars import HERE, Sidecar, gunicorn


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--per-second", type=float, default=30)
    options.add_argument("--baseline", type=float, default=75, metavar="SECONDS")
    options.add_argument("--within", type=float, default=60, metavar="SECONDS")
    options.add_argument("--slower", type=float, default=0.2, metavar="SECONDS")
    options.add_argument("--which", choices=["prices", "ratings"], default="prices")
    options.add_argument("--healthy", action="store_true", help="nothing gets slower, but there is noise")
    options.add_argument("--minutes", type=float, default=10, help="for so long, when nothing gets slower")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--quick", action="store_true", help="the same with the shortest baseline")
    options.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where logs stay")
    options = options.parse_args()
    if options.quick:
        options.baseline, options.minutes = 65, 1.5
    if options.keep:
        options.work = options.keep.resolve()
        options.work.mkdir(parents=True)
    return options


class Dependency:
    """Answers after log-normally distributed milliseconds, and now and then pauses to collect garbage."""

    def __init__(self, name, median, sigma, pauses, seed):
        self.name, self.slower = name, 0.0
        self._median, self._sigma, self._random = median, sigma, random.Random(seed)
        # When nobody gets an answer, in seconds of the monotonic clock.
        self._until, self._pauses = 0.0, pauses
        dependency = self

        class Handler(QuietHandler):
            def do_GET(self):
                dependency.think()
                self.answer(200, "application/json", json.dumps({dependency.name: self.path}).encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        if pauses:
            threading.Thread(target=self._pause, daemon=True).start()

    def think(self):
        time.sleep(self._random.lognormvariate(0, self._sigma) * self._median + self.slower)
        time.sleep(max(0, self._until - time.monotonic()))

    def _pause(self):
        while True:
            time.sleep(self._random.expovariate(1 / 15))
            self._until = time.monotonic() + self._random.uniform(0.05, 0.4)


def load(per_second, seconds, noisy, seed):
    """Requests for so long; when noisy, not evenly: bursts, and moments with few."""
    ids, until = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < until:
        yield Asked("GET", f"/orders/{uuid.UUID(int=ids.getrandbits(128), version=4)}", 200, "front")
        if noisy and ids.random() < 1 / (per_second * 5):
            time.sleep(ids.uniform(0.1, 2))


def main():
    options = parse()
    collector = Collector()
    noise = (0.5, True) if options.healthy else (0.3, False)
    dependencies = {
        name: Dependency(name, median, *noise, seed=options.seed + at)
        for at, (name, median) in enumerate({"prices": 0.010, "ratings": 0.015}.items())
    }
    mapped = dict(zip(dependencies, free_ports(2), strict=True))
    problems, answers = [], []
    with Programs(options.work) as programs:
        told = {f"{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in mapped.items()}
        to = programs.start("front", *gunicorn("front", 48), **told, PYTHONPATH=HERE)
        outbound = {
            "mapped": [
                {"listen": f"127.0.0.1:{port}", "to": dependencies[name].url, "name": name}
                for name, port in mapped.items()
            ]
        }
        sidecar = Sidecar(
            programs, options, "front", to, collector, routes=["/orders/{order}"], outbound=outbound
        )
        if not page(sidecar):
            raise SystemExit("FAILED: there is no page /slow")
        seconds = options.minutes * 60 if options.healthy else options.baseline + options.within
        over = threading.Event()
        asked = load(options.per_second, seconds, options.healthy, options.seed)
        loading = threading.Thread(
            target=lambda: answers.extend(
                drive(
                    itertools.takewhile(lambda _: not over.is_set(), asked),
                    lambda _: sidecar.address,
                    in_flight=24,
                    per_second=options.per_second,
                )
            )
        )
        loading.start()
        if options.healthy:
            loading.join()
            problems += judge.quiet(page(sidecar), sidecar.metrics())
            print(f"{options.minutes:g} minutes of noise, {len(answers)} requests")
        else:
            problems += slow_down(options, sidecar, dependencies)
            over.set()
            loading.join()
        problems += unexpected(answers) + programs.stop("tracecar")
    return failures.conclude(problems)


def slow_down(options, sidecar, dependencies):
    """Waits, slows one down, and waits until that is told."""
    time.sleep(options.baseline)
    if problems := judge.quiet(page(sidecar), sidecar.metrics()):
        return [f"before anything happened: {each}" for each in problems]
    dependencies[options.which].slower = options.slower
    began = time.monotonic()
    innocent = next(name for name in dependencies if name != options.which)
    while True:
        told = page(sidecar)
        problems = judge.shifts(told, options.which, innocent)
        after = time.monotonic() - began
        if not problems or after > options.within:
            break
        time.sleep(0.5)
    for shift in told["now"]:
        said = ("side", "place", "quantile", "before_ms", "after_ms", "cause", "cause_kind", "began_at")
        print(", ".join(f"{name}: {shift.get(name)}" for name in said))
    print(
        f"{options.which} became {options.slower * 1e3:g} ms slower; {after:.1f} s later the page is as above"
    )
    return problems


def page(sidecar):
    """What `/slow` says, or None if there is none."""
    try:
        return json.loads(sidecar.page("/slow", accept="application/json"))
    except (OSError, ValueError, http.client.HTTPException):
        return None


if __name__ == "__main__":
    sys.exit(main())
