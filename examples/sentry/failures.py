"""A thousand failures of six services: has Sentry got an issue for each cause, and can it be read?"""

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

import judge
from causes import FAULTS, MODES, requests
from common import Collector, Programs, print_table
from driver import drive, unexpected
from server import Bugsink
from sidecars import accounted, cache, start_all, wait_for


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--failures", type=int, default=1000)
    options.add_argument("--successes", type=int, default=500)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--quick", action="store_true", help="250 failures")
    options.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where logs and the database stay")
    options = options.parse_args()
    if options.quick:
        options.failures, options.successes = 250, 100
    if options.keep:
        options.work = options.keep.resolve()
        options.work.mkdir(parents=True)
    return options


def patterns():
    """What a readable title matches, by cause; several faults of one cause have the same."""
    return {fault.cause(mode): fault.title(mode) for mode in MODES for fault in FAULTS}


def table(events, truth):
    """The titles of the issues, as a person sees them who opens Sentry."""
    issues = defaultdict(list)
    for event in events:
        issues[event.issue].append(event)
    rows = []
    for of_issue in issues.values():
        causes = {truth.get(event.key) for event in of_issue}
        service = next((cause.service for cause in causes if cause), "?")
        rows.append([service, len(of_issue), len(causes), of_issue[-1].title[:110]])
    print_table(["service", "events", "causes", "title"], sorted(rows, key=lambda row: (row[0], row[3])))


def check(events, truth, spans):
    """Everything that is asked of the events."""
    return [
        *judge.grouping(events, truth),
        *judge.repeated(events),
        *judge.titles(events, truth, patterns()),
        *judge.services(events, truth),
        *judge.linked(events, spans, truth),
    ]


def main():
    options = parse()
    collector = Collector()
    with Programs(options.work) as programs:
        bugsink = Bugsink(programs, options.work, cache())
        project, dsn = bugsink.project("failures")
        sidecars = start_all(programs, options, collector, dsn)
        answers = drive(
            requests(options.failures, options.successes, options.seed),
            lambda asked: sidecars[asked.service].address,
        )
        problems = unexpected(answers)
        truth = {answer.key: answer.asked.cause for answer in answers if answer.asked.cause}
        expected = Counter(cause.service for cause in truth.values())

        def all_told(service):
            told = sidecars[service].account()
            return told is None or (not told["queued"] and accounted(told) >= expected[service])

        for service in sidecars:
            wait_for(lambda service=service: all_told(service), 30)
        accounts = {service: sidecar.account() for service, sidecar in sidecars.items()}
        events = bugsink.events(project)
        stored = Counter(event.service for event in events)
        pages = {service: errors_page(sidecar) for service, sidecar in sidecars.items()}
        problems += programs.stop("tracecar")
    for service, told in accounts.items():
        problems += judge.sums(expected[service], told, stored[service], service)
    problems += check(events, truth, {span.key: span for span in collector.spans})
    for service, page in pages.items():
        problems += judge.page(page, truth, service)

    table(events, truth)
    print(f"\n{len(truth)} failures of {len(set(truth.values()))} causes among {len(answers)} requests")
    print(f"{len(events)} events in {len({event.issue for event in events})} issues\n")
    rows = [
        [
            service,
            expected[service],
            told["sent"],
            *(f"{count} {why}" for why, count in told["dropped"].items()),
        ]
        for service, told in accounts.items()
        if told
    ]
    for row in rows:
        print(f"{row[0]}: {row[1]} failures, {row[2]} sent, dropped: {', '.join(row[3:]) or 'none'}")
    return conclude(problems)


def errors_page(sidecar):
    """The page of failures, or why there is none."""
    try:
        return sidecar.page("/errors", accept="application/json")
    except OSError as error:
        return str(error)


def conclude(problems):
    print()
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print("all good")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
