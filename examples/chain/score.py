"""Compares what tracecar said about the causes of calls with the truth that the services noted."""

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import fmean

from common import TIMING

RIGHT, UNKNOWN, WRONG = "right", "unknown", "wrong"
# The spans do not hold together, whatever the parent: not a matter of finding it.
BROKEN = "broken"
NO_METHOD = "-"
MOST_LINKS = 3
# What is less certain than this is told apart: tracecar says of it that it knows too little of the service yet.
CERTAIN = 0.7
A_GUESS = " (a guess)"


@dataclass(frozen=True)
class Call:
    """A call as those who made and answered it know it. Spans are keys: (trace, span)."""

    caller: str
    callee: str
    kind: str
    # The SERVER span that the call was made for, or None if no request caused it.
    cause: tuple | None
    # The SERVER span that answered it.
    reached: tuple

    @property
    def edge(self):
        return f"{self.caller}->{self.callee}"


@dataclass(frozen=True)
class Verdict:
    word: str
    method: str = NO_METHOD
    # Whether the cause of an unknown call is among its links.
    linked: bool = False
    problem: str | None = None


def span_in(timing):
    found = TIMING.search(timing)
    return found and found.groups()[:2]


def calls(requests, files):
    """Joins what was noted.

    `requests` are the driver's own (id that was served, `Server-Timing`); `files` are the truth files by
    (caller, callee).
    """
    lines = [(ends, json.loads(line)) for ends, file in files.items() for line in file.read_text().splitlines()]
    spans = {served: span_in(timing) for served, timing in requests}
    spans |= {line["served"]: span_in(line["timing"]) for _, line in lines}
    return [
        Call(*ends, line["kind"], line["cause"] and spans[line["cause"]], spans[line["served"]])
        for ends, line in lines
    ]


def judge(call, spans):
    """What tracecar made of a call; `spans` by key."""
    server = spans.get(call.reached)
    if server is None or (server.kind, server.service) != ("SERVER", call.callee):
        return Verdict(BROKEN, problem="there is no SERVER span of the callee")
    client = spans.get(server.parent)
    if client is None or (client.kind, client.service) != ("CLIENT", call.caller):
        return Verdict(BROKEN, problem="above the callee's span there is no CLIENT span of the caller")
    method = client.attributes.get("tracecar.lineage.method", NO_METHOD)
    problem = of_lineage(client, method)
    if problem:
        return Verdict(BROKEN, method, problem=problem)
    if client.parent is not None and client.attributes.get("tracecar.lineage.confidence", 1) < CERTAIN:
        method += A_GUESS
    if client.parent == call.cause:
        return Verdict(RIGHT, method)
    if client.parent is None:
        return Verdict(UNKNOWN, method, call.cause in client.links)
    return Verdict(WRONG, method)


def of_lineage(client, method):
    """What is wrong with what a CLIENT span says of how its parent was found, if anything is."""
    confidence, candidates = [
        client.attributes.get(f"tracecar.lineage.{name}") for name in ("confidence", "candidates")
    ]
    if method == NO_METHOD:
        return "a CLIENT span says no method"
    if (method == "none") != (client.parent is None):
        return f"the method is {method}, and the parent {client.parent}"
    if confidence is not None and not 0 <= confidence <= 1:
        return f"the confidence is {confidence}"
    if client.parent is None and len(client.links) != min(candidates or 0, MOST_LINKS):
        return f"{candidates} candidates, and {len(client.links)} links"
    return None


def whole(requests, judged):
    """How many of the requests have one trace with all calls that they caused, at any depth."""
    below = defaultdict(list)
    for call, verdict in judged:
        below[call.cause].append((call, verdict))

    def is_whole(span):
        return all(verdict.word == RIGHT and is_whole(call.reached) for call, verdict in below[span])

    return sum(is_whole(span_in(timing)) for _, timing in requests)


def in_flight(spans):
    """How many requests a service had open on average when a call of it began: what makes causes hard to tell apart."""
    starts, ends = defaultdict(list), defaultdict(list)
    for span in spans:
        if span.kind == "SERVER":
            starts[span.service].append(span.span.start_time_unix_nano)
            ends[span.service].append(span.span.end_time_unix_nano)
    for times in (*starts.values(), *ends.values()):
        times.sort()
    calls = [(span.service, span.span.start_time_unix_nano) for span in spans if span.kind == "CLIENT"]
    open_then = [bisect_right(starts[service], at) - bisect_left(ends[service], at) for service, at in calls]
    return fmean(open_then or [0])


def rows(judged, by):
    """Counts per group, as a table has them; `by` makes the first columns out of a call and its verdict."""
    groups = defaultdict(Counter)
    for call, verdict in judged:
        group = groups[by(call, verdict)]
        group[verdict.word] += 1
        group["linked"] += verdict.linked
    for key, group in sorted(groups.items()):
        total = sum(group[word] for word in (RIGHT, UNKNOWN, WRONG, BROKEN))
        counts = [group[word] for word in (RIGHT, UNKNOWN, "linked", WRONG, BROKEN)]
        yield [*key, total, *counts, f"{share(group[RIGHT], total)} %", f"{share(group[WRONG], total)} %"]


COLUMNS = ["calls", "right", "unknown", "linked", "wrong", "broken", "right", "wrong"]


def share(part, of):
    """Percent; never rounded up to all or down to nothing."""
    if not of or part in (0, of):
        return 100.0 if of and part else 0.0
    return min(99.99, max(0.01, round(100 * part / of, 2)))


def missed(judged, least, most_wrong):
    """The bounds that were not kept: at least so many percent right, of an edge or of all; at most so many wrong, of all and of each
    method, guesses apart: the many calls that one leaves unknown do not make another right."""
    told = []
    for edge, percent in least:
        words = [verdict.word for call, verdict in judged if edge in (None, call.edge, call.caller)]
        if not words or 100 * words.count(RIGHT) < percent * len(words):
            told.append(f"{share(words.count(RIGHT), len(words))} % of {edge or 'all'} are right, not {percent:g} %")
    if most_wrong is None:
        return told
    by_method = defaultdict(list)
    for _, verdict in judged:
        by_method[verdict.method].append(verdict.word)
    by_method["all"] = [verdict.word for _, verdict in judged]
    for method, words in sorted(by_method.items()):
        wrong = words.count(WRONG)
        if 100 * wrong > most_wrong * len(words):
            told.append(f"{share(wrong, len(words))} % of {method} are wrong, more than {most_wrong:g} %")
    return told
