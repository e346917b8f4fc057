"""Sentry is down, silent, overloaded or broken: does any request notice, and does each lost event count?"""

import argparse
import gzip
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import failures
import judge
from common import Collector, Programs, print_table
from driver import CLIENTS, ask, drive, unexpected
from fake import Fake
from sidecars import HERE, NODE, Sidecar, accounted, wait_for

# How compressed content begins.
GZIP = b"\x1f\x8b"
# Digits at the end that the stock fails for, and statuses.
FAILING = {1: 500, 2: 500, 3: 503, 4: 500, 6: 500, 8: 502}


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    status: int
    service: str = "stock"

    @property
    def failed(self):
        return self.status >= 500


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--requests", type=int, default=2000)
    options.add_argument("--per-second", type=float, default=250)
    options.add_argument("--moods", nargs="+", choices=Fake.MOODS, default=Fake.MOODS)
    options.add_argument("--quick", action="store_true", help="400 requests for each mood")
    options = options.parse_args()
    if options.quick:
        options.requests = 400
    return options


def questions(count, seed):
    """A third of them fail."""
    ids = random.Random(seed)
    made = []
    for _ in range(count):
        digit = ids.choice(list(FAILING)) if ids.random() < 1 / 3 else 0
        made.append(Asked("GET", f"/items/{ids.randrange(100_000)}{digit}", FAILING.get(digit, 200)))
    return made


def run(programs, options, to, collector, asked, mood):
    """Makes the requests with Sentry in this mood: (answers, account, what Sentry got, problems)."""
    fake = Fake(mood)
    sentry = {"dsn": fake.dsn, "environment": "examples"}
    sidecar = Sidecar(programs, options, "stock", to, collector, fake.dsn, sentry=sentry)
    answers = drive(asked, lambda _: sidecar.address, in_flight=16, per_second=options.per_second)
    problems = [f"{mood}: {each}" for each in unexpected(answers)]
    failed = sum(each.failed for each in asked)
    # Records come to the telemetry a moment after the answers.
    wait_for(lambda: (told := sidecar.account()) is None or accounted(told) >= failed, 10)
    if mood == "well":
        wait_for(lambda: (told := sidecar.account()) is None or not told["queued"], 10)
    account = sidecar.account()
    problems += judge.balance(failed, account, mood, len(fake.events))
    # It has to end in spite of a Sentry that does not answer.
    problems += programs.stop("tracecar")
    fake.close()
    return answers, account, fake, problems + [f"{mood}: {each}" for each in fake.problems[:3]]


def main():
    options = parse()
    collector = Collector()
    asked = questions(options.requests, 1)
    problems, rows, timings = [], [], {}
    with Programs(options.work) as programs:
        to = programs.start("stock", NODE, "node", HERE / "stock.cjs", NODE_ENV="production")
        connections = {}
        bodies = {each.path: ask(connections, to, each, CLIENTS[0]).body for each in asked}
        # Once more at the end, so that what the machine did meanwhile is no slowness of ours.
        for mood in [*options.moods, "well"]:
            answers, account, fake, told = run(programs, options, to, collector, asked, mood)
            problems += told + differing(answers, bodies, mood)
            durations = [answer.seconds for answer in answers]
            timings.setdefault(mood, []).append(durations)
            ms = [f"{judge.quantile(durations, at) * 1e3:.1f} ms" for at in (0.5, 0.99)]
            dropped = ", ".join(
                f"{count} {why}" for why, count in ((account or {}).get("dropped") or {}).items()
            )
            sent, queued = (account or {}).get("sent", "-"), (account or {}).get("queued", "-")
            rows.append([mood, len(answers), *ms, sent, queued, dropped, fake.attempts["event"]])
    well = max(timings["well"], key=lambda durations: judge.quantile(durations, 0.99))
    for mood, of_mood in timings.items():
        for durations in of_mood if mood != "well" else []:
            problems += judge.slower(well, durations, f"Sentry is {mood}")
    print_table(["Sentry is", "requests", "p50", "p99", "sent", "queued", "dropped", "tried"], rows)
    return failures.conclude(problems)


def differing(answers, bodies, mood):
    """Answers that are not what the service says without tracecar."""

    def text(body):
        return gzip.decompress(body) if body.startswith(GZIP) else body

    wrong = [answer for answer in answers if text(answer.body) != bodies[answer.asked.path]]
    return [f"{mood}: {len(wrong)} answers differ, such as that of {wrong[0].asked.path}"] if wrong else []


if __name__ == "__main__":
    sys.exit(main())
