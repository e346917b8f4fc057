"""Compares what was told of failures with what those know who made them."""

import json
import re
from collections import Counter, defaultdict
from datetime import datetime

# Counts how often something was found to have got slow.
SHIFTS = "tracecar_latency_shifts_total"
# Titles that tell nobody anything.
EMPTY = re.compile(r"(?i)(error|exception|unknown|none|null|\d*)|<.*>")


def grouping(events, truth):
    """What is wrong with how events make issues. `truth` has the cause of each failure by its trace and span.

    As many issues as causes, none of which has events of two causes; and no event of what did not fail.
    """
    told, by_issue, by_cause = [], defaultdict(Counter), defaultdict(set)
    strange = Counter()
    for event in events:
        cause = truth.get(event.key)
        if cause is None:
            strange[event.title] += 1
            continue
        by_issue[event.issue][cause] += 1
        by_cause[cause].add(event.issue)
    told += [f"{count} events of no failure, such as {title!r}" for title, count in strange.items()]
    for causes in by_issue.values():
        if len(causes) > 1:
            told.append("one issue has the events of several causes: " + "; ".join(map(str, causes)))
    for cause in dict.fromkeys(truth.values()):
        issues = by_cause[cause]
        if len(issues) != 1:
            told.append(f"{len(issues)} issues for one cause, {cause}")
    return told


def repeated(events):
    """Failures of which there is more than one event."""
    counts = Counter(event.key for event in events)
    return [f"{count} events of one failure, {key}" for key, count in counts.items() if count > 1]


def services(events, truth):
    """Events that belong to another service than they say."""
    wrong = [
        (event, truth[event.key])
        for event in events
        if event.key in truth and event.service != truth[event.key].service
    ]
    return (
        [f"{len(wrong)} events name another service, such as {wrong[0][0].service} for {wrong[0][1]}"]
        if wrong
        else []
    )


def titles(events, truth, patterns):
    """Titles that say nothing of what went wrong. `patterns` are by cause."""
    told = {}
    for event in events:
        cause = truth.get(event.key)
        if cause is None or cause in told:
            continue
        if EMPTY.fullmatch(event.title.strip()) or not re.search(patterns[cause], event.title):
            told[cause] = f"the title {event.title!r} says nothing of /{patterns[cause]}/, {cause}"
    return list(told.values())


def linked(events, spans, truth):
    """Events whose trace and span lead nowhere, or to a request that did not fail. `spans` by their keys."""
    told = Counter()
    for event in events:
        span, cause = spans.get(event.key), truth.get(event.key)
        if span is None:
            told["events lead to no span"] += 1
        elif span.kind != "SERVER":
            told[f"events lead to a {span.kind} span"] += 1
        # What counts as a failure by configuration is not an error to OpenTelemetry: a 4xx is the caller's.
        elif not span.failed and not (cause and 400 <= cause.status < 500):
            told["events lead to a span that did not fail"] += 1
        elif cause and span.service != cause.service:
            told["events lead to the span of another service"] += 1
    return [f"{count} {text}" for text, count in told.items()]


def sums(failures, told, stored, what):
    """Whether each failure was either sent or counted as dropped, and what was sent is there."""
    if told is None:
        return [f"{what}: there are no metrics tracecar_sentry_*"]
    dropped = sum(told["dropped"].values())
    problems = []
    if told["queued"] or told["sent"] + dropped != failures:
        problems.append(
            f"{what}: {failures} failures; {told['sent']} sent, {dropped} dropped, {told['queued']} queued"
        )
    if told["sent"] != stored:
        problems.append(f"{what}: {told['sent']} were sent, and {stored} have arrived")
    return problems


def balance(failures, told, what, taken):
    """Whether each failure is sent, dropped for a reason, or waits; and what was sent was taken."""
    if told is None:
        return [f"{what}: there are no metrics tracecar_sentry_*"]
    dropped = sum(told["dropped"].values())
    problems = []
    if told["sent"] + told["queued"] + dropped != failures:
        problems.append(
            f"{what}: {failures} failures; {told['sent']} sent, {dropped} dropped, {told['queued']} queued"
        )
    if told["sent"] != taken:
        problems.append(f"{what}: {told['sent']} are said to be sent, and Sentry took {taken}")
    if what == "well" and (told["queued"] or not told["sent"]):
        problems.append(f"{what}: {told['queued']} still wait, and {told['sent']} were sent")
    return problems


def page(text, truth, service):
    """Whether tracecar's own page has a group for each cause, with the right count and examples of it."""
    try:
        groups = [
            (group["count"], {truth.get((each["trace_id"], each["span_id"])) for each in group["examples"]})
            for group in json.loads(text)["groups"]
        ]
    except (ValueError, TypeError, KeyError):
        return [f"{service}: /errors is no list of groups with counts and examples: {text[:100]!r}"]
    left = Counter(cause for cause in truth.values() if cause.service == service)
    told = []
    for count, causes in groups:
        cause = next(iter(causes)) if len(causes) == 1 else None
        if cause is None:
            told.append(
                f"{service}: a group of /errors has examples of {', '.join(map(str, causes)) or 'nothing'}"
            )
        elif count != left[cause]:
            told.append(f"{service}: a group of /errors has {count} of {left[cause]} failures, {cause}")
        left.pop(cause, None)
    return told + [
        f"{service}: /errors has no group for {count} failures, {cause}" for cause, count in left.items()
    ]


def found(secrets, places):
    """Secrets that are where they should not be. `places` are (name, bytes)."""
    told = {}
    for name, content in places:
        for what, secret in secrets.items():
            if secret.encode() in content:
                told.setdefault((what, name), None)
    return [f"the secret in {what} is in {name}" for what, name in told]


# What the machine itself does to a quantile of durations in seconds, on top of a third of it.
NOISE = {"p50": (0.5, 0.0005), "p99": (0.99, 0.010)}


def slower(healthy, other, what):
    """Whether requests take longer than when Sentry is well; both are durations in seconds."""
    told = []
    for name, (at, noise) in NOISE.items():
        before, after = quantile(healthy, at), quantile(other, at)
        if after > before * 4 / 3 + noise:
            told.append(
                f"{what}: {name} is {after * 1e3:.1f} ms, and {before * 1e3:.1f} ms when Sentry is well"
            )
    return told


def quantile(durations, at):
    ordered = sorted(durations)
    return ordered[min(len(ordered) - 1, int(len(ordered) * at))]


def outage(events, began, ended, tolerance=1.0):
    """Whether the events of an outage say when it began and ended, in seconds since the epoch, and how often.

    One issue; one event that has both times, and at most another that was sent when it began.
    """
    if not events:
        return ["there is no event of the outage"]
    told = []
    if (issues := len({event.issue for event in events})) != 1:
        told.append(
            f"the outage is {issues} issues: " + "; ".join(dict.fromkeys(event.title for event in events))
        )
    whole = [times for event in events if (times := times_in(event.data)) and None not in times]
    if len(whole) != 1:
        told.append(f"{len(whole)} events say when the outage began and ended, of {len(events)}")
    if len(events) - len(whole) > 1:
        told.append(f"{len(events) - len(whole)} events say only that something does not answer")
    for said_began, said_ended in whole:
        for word, said, true in (("began", said_began, began), ("ended", said_ended, ended)):
            if abs(said - true) > tolerance:
                told.append(f"the outage {word} {said - true:+.1f} s from when it really did")
    return told


def times_in(data):
    """When something began and ended, as an event says: (seconds, seconds or None), or None."""
    from_keys = {}

    def look(each):
        if isinstance(each, dict):
            for name, below in each.items():
                if (word := re.fullmatch(r"(?:.*[._])?(began|ended)(?:_at)?", name)) and isinstance(
                    below, str | int | float
                ):
                    from_keys.setdefault(word[1], seconds(below))
                look(below)
        elif isinstance(each, list):
            for below in each:
                look(below)

    look({name: data.get(name) for name in ("contexts", "extra", "tags")})
    return (from_keys["began"], from_keys.get("ended")) if from_keys.get("began") else None


def seconds(text):
    """RFC 3339, or seconds since the epoch."""
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def shifts(page, wanted, innocent):
    """Whether the page of what got slow names the one dependency as a cause, and not the other."""
    told = []
    causes = [str(shift.get("cause")) for shift in page.get("now", []) if shift.get("side") == "inbound"]
    if not any(wanted in cause for cause in causes):
        told.append(
            f"no request that got slow is said to wait for {wanted}, but: {', '.join(causes) or 'nothing'}"
        )
    if blamed := [cause for cause in causes if innocent in cause]:
        told.append(f"{blamed[0]} is blamed, and has done nothing")
    if any(
        innocent in str(shift.get("place"))
        for shift in page.get("now", [])
        if shift.get("side") == "outbound"
    ):
        told.append(f"{innocent} is said to be slow, and is not")
    return told


def quiet(page, numbers):
    """Whether nothing was ever said to be slow."""
    told = []
    for name in ("now", "ended"):
        for shift in page[name]:
            told.append(f"{shift.get('place')} is said to be slow ({name}): {shift.get('cause')}")
    for (name, labels), number in numbers.items():
        if name == SHIFTS and number:
            told.append(f"{name} is {number:g} for {dict(labels)}")
    if not any(name == SHIFTS for name, _ in numbers):
        told.append(f"there is no metric {SHIFTS}")
    return told
