"""Shows that the judges can say no: right and wrong events of sentry_sdk in tracecar's place."""

import argparse
import sys
from pathlib import Path

import sentry_sdk

import failures
import judge
from causes import requests
from common import Collector, Programs, print_table
from driver import drive, unexpected
from server import Bugsink
from sidecars import cache, start_all


def right(cause, answer, at):
    """An event as it should be."""
    trace, span = answer.key
    return {
        "exception": {"values": [{"type": cause.kind, "value": cause.message.replace("{}", str(at))}]},
        "fingerprint": [cause.service, cause.place, str(cause.status), cause.kind, cause.message],
        "contexts": {"trace": {"trace_id": trace, "span_id": span}},
        "tags": {"service": cause.service},
    }


def by_path(cause, answer, at):
    """An issue for each URL."""
    return right(cause, answer, at) | {"fingerprint": [answer.asked.path]}


def by_status(cause, answer, at):
    """One issue for all that ended with one status."""
    return right(cause, answer, at) | {"fingerprint": [str(cause.status)]}


def by_server(cause, answer, at):
    """No fingerprint: the server makes groups out of type and message."""
    event = right(cause, answer, at)
    del event["fingerprint"]
    return event


def unlabelled(cause, answer, at):
    """Neither type nor message."""
    return right(cause, answer, at) | {"exception": {"values": [{"type": "Error"}]}}


def synthetic(cause, answer, at):
    """A title that is said of each failure."""
    return right(cause, answer, at) | {
        "exception": {"values": [{"type": "Error", "value": "request failed"}]}
    }


def lost_in_space(cause, answer, at):
    """A span that nobody has."""
    event = right(cause, answer, at)
    event["contexts"]["trace"]["span_id"] = f"{at + 1:016x}"
    return event


def of_another(cause, answer, at):
    """The name of another service."""
    return right(cause, answer, at) | {"tags": {"service": "another"}}


def forgetful(cause, answer, at):
    """One is missing, and nobody says so."""
    return None if at == 7 else right(cause, answer, at)


def stuttering(cause, answer, at):
    """One is sent twice."""
    return [right(cause, answer, at)] * (2 if at == 7 else 1)


# How events are made, and whether the judge should have something to say.
MANNERS = {
    right: False,
    by_path: True,
    by_status: True,
    by_server: True,
    unlabelled: True,
    synthetic: True,
    lost_in_space: True,
    of_another: True,
    forgetful: True,
    stuttering: True,
}


def send(dsn, make, failed):
    """Sends an event for each failure, as an SDK does; returns how many of them it sent."""
    client = sentry_sdk.Client(dsn, default_integrations=False, auto_enabling_integrations=False)
    sent = 0
    for at, answer in enumerate(failed):
        made = make(answer.asked.cause, answer, at)
        for event in made if isinstance(made, list) else [made]:
            if event:
                # What an SDK adds to an event it takes from its scope: none of it is asked for here.
                client.capture_event(dict(event))
                sent += 1
        if at % 50 == 49:
            client.flush(30)
    client.close(30)
    return sent


def leak(bugsink):
    """What was sent and should not have been has to be found, wherever it is."""
    _, dsn = bugsink.project("leak")
    # A transaction is not stored, but was sent. It goes first: bugsink answers that it wants no more of them.
    for event in [
        {"type": "transaction", "transaction": "GET /?token=s3cr3tInATransaction"},
        {"message": "m", "request": {"headers": {"x-my-secret": "s3cr3tInAnEvent"}}},
    ]:
        client = sentry_sdk.Client(dsn, default_integrations=False, auto_enabling_integrations=False)
        client.capture_event(event)
        client.close(30)
    secrets = {
        "an event": "s3cr3tInAnEvent",
        "a transaction": "s3cr3tInATransaction",
        "nothing": "s3cr3tOfNobody",
    }
    told = "\n".join(judge.found(secrets, bugsink.everything()))
    noticed = {what: f"the secret in {what} " in told for what in secrets}
    return [f"secrets: {noticed}"] if list(noticed.values()) != [True, True, False] else []


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--failures", type=int, default=100)
    options = options.parse_args()
    collector = Collector()
    problems, rows = [], []
    with Programs(options.work) as programs:
        bugsink = Bugsink(programs, options.work, cache())
        sidecars = start_all(programs, options, collector, None)
        answers = drive(requests(options.failures, 50, 1), lambda asked: sidecars[asked.service].address)
        problems += unexpected(answers) + programs.stop("tracecar")
        failed = [answer for answer in answers if answer.asked.cause]
        truth = {answer.key: answer.asked.cause for answer in failed}
        spans = {span.key: span for span in collector.spans}
        for make, wrong in MANNERS.items():
            project, dsn = bugsink.project(make.__name__)
            send(dsn, make, failed)
            events = bugsink.events(project)
            told = failures.check(events, truth, spans)
            # What an honest sender would count.
            account = {"sent": len(failed), "queued": 0, "dropped": {}}
            told += judge.sums(len(failed), account, len(events), "all")
            rows.append(
                [make.__name__, len(events), len({event.issue for event in events}), len(told), *told[:1]]
            )
            if bool(told) != wrong:
                problems += [f"{make.__name__}: {each}" for each in told] or [
                    f"{make.__name__} was not noticed"
                ]
        problems += leak(bugsink)
    print_table(["events", "stored", "issues", "problems", "the first"], [(*row, "")[:5] for row in rows])
    return failures.conclude(problems)


if __name__ == "__main__":
    sys.exit(main())
