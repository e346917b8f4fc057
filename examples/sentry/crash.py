"""Kills an app under load and starts it again: is that one event, with the times of its absence?"""

import argparse
import http.client
import itertools
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import failures
import judge
from common import Collector, Program, Programs, free_ports
from driver import drive
from outage import Asked
from server import Bugsink
from sidecars import Sidecar, cache, uvicorn, wait_for


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--per-second", type=float, default=200)
    options.add_argument("--before", type=float, default=5, metavar="SECONDS")
    options.add_argument("--away", type=float, default=5, metavar="SECONDS")
    options.add_argument("--after", type=float, default=10, metavar="SECONDS")
    options.add_argument(
        "--settle", type=float, default=90, metavar="SECONDS", help="until the event has come"
    )
    options.add_argument("--quick", action="store_true", help="shorter before and after")
    options.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where logs and the database stay")
    options = options.parse_args()
    if options.quick:
        options.before, options.after = 2, 4
    if options.keep:
        options.work = options.keep.resolve()
        options.work.mkdir(parents=True)
    return options


class App:
    """The shop, at one port for all its lives."""

    def __init__(self, options):
        self._options, self.port = options, free_ports(1)[0]
        self._lives = itertools.count(1)
        self._start()

    def _start(self):
        name = f"shop-{next(self._lives)}"
        pattern, *command = [str(each) for each in uvicorn("shop", self.port)]
        # Closed with the process that writes to it.
        log = (self._options.work / f"{name}.log").open("w")
        self._program = Program(name, pattern, command, log)

    def crash(self, seconds):
        """Dies, and comes back: the times when it was away, in seconds since the epoch."""
        began = time.time()
        os.kill(self._program._process.pid, signal.SIGKILL)
        self._program._process.wait()
        time.sleep(seconds)
        self._start()
        # Answering is what counts, not the line in the log.
        wait_for(self._answers, 20, 0.01)
        return began, time.time()

    def _answers(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/items/10")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self):
        self._program.stop()


def main():
    options = parse()
    collector = Collector()
    app, times = App(options), {}
    try:
        with Programs(options.work) as programs:
            bugsink = Bugsink(programs, options.work, cache())
            project, dsn = bugsink.project("crash")
            sidecar = Sidecar(
                programs, options, "shop", ("127.0.0.1", app.port), collector, dsn, routes=["/items/{item}"]
            )

            def fall():
                time.sleep(options.before)
                times["began"], times["ended"] = app.crash(options.away)
                times["over"] = times["ended"] + options.after

            falling = threading.Thread(target=fall)
            falling.start()
            # All of them succeed as long as there is an app.
            asked = itertools.takewhile(
                lambda _: time.time() < times.get("over", float("inf")),
                (Asked("GET", f"/items/{number}0", 200) for number in itertools.count(1)),
            )
            answers = drive(asked, lambda _: sidecar.address, in_flight=16, per_second=options.per_second)
            falling.join()
            began, ended = times["began"], times["ended"]
            wait_for(
                lambda: not judge.outage(outages(bugsink.events(project)), began, ended), options.settle, 1
            )
            events = bugsink.events(project)
            problems = programs.stop("tracecar")
    finally:
        app.stop()
    of_outage = outages(events)
    others = [event for event in events if event not in of_outage]
    statuses = Counter(answer.status for answer in answers)
    refused = sum(answer.status == 502 for answer in answers)
    print(f"{len(answers)} requests, by status: {dict(statuses)}; the app was away for {ended - began:.1f} s")
    for event in events:
        times_told = judge.times_in(event.data)
        print(f"event: {event.title}  {times_told or ''}")
    problems += judge.outage(of_outage, began, ended)
    if not refused or set(statuses) - {200, 502}:
        problems.append(f"the load did not see the outage as it should: {dict(statuses)}")
    # Requests that were under way when the app died saw a connection break: another cause.
    if len(others) > 16 or len({event.issue for event in others}) > 2:
        problems.append(f"{len(others)} other events in {len({event.issue for event in others})} issues")
    return failures.conclude(problems)


def outages(events):
    """Those that are not of a request that was under way when the app died."""
    return [event for event in events if judge.times_in(event.data) or "refused" in str(event.data).lower()]


if __name__ == "__main__":
    sys.exit(main())
