"""The judges of what Sentry was told, judged: a check that cannot fail says nothing."""

import json
import unittest
from collections import Counter
from dataclasses import dataclass

import judge
from causes import FAULTS, MODES, Cause, requests
from server import Event, title
from sidecars import account, metrics

BEGAN, ENDED = 1_800_000_000.0, 1_800_000_005.0


def cause(name, service="shop", status=500):
    return Cause(service, f"GET /{name}", status, "ValueError", "order {} has no lines")


def event(issue, at, service="shop", title="ValueError: order 7 has no lines", **contexts):
    contexts = {"trace": {"trace_id": "t", "span_id": str(at)}} | contexts
    return Event(issue, {"contexts": contexts, "tags": {"service": service}}, title)


@dataclass
class Span:
    kind: str = "SERVER"
    failed: bool = True
    service: str = "shop"


# Two failures of one cause and one of another.
TRUTH = {("t", "1"): cause("a"), ("t", "2"): cause("a"), ("t", "3"): cause("b")}
RIGHT = [event("A", 1), event("A", 2), event("B", 3)]


class Grouping(unittest.TestCase):
    def test_an_issue_for_each_cause_is_right(self):
        self.assertEqual(judge.grouping(RIGHT, TRUTH), [])

    def test_events_may_be_fewer_than_failures(self):
        self.assertEqual(judge.grouping([RIGHT[0], RIGHT[2]], TRUTH), [])

    def test_a_cause_in_two_issues_is_told(self):
        self.assertEqual(len(judge.grouping([event("A", 1), event("C", 2), event("B", 3)], TRUTH)), 1)

    def test_two_causes_in_one_issue_are_told(self):
        self.assertIn("several causes", judge.grouping([event("A", 1), event("A", 3)], TRUTH)[0])

    def test_two_issues_that_are_mixed_up_are_told_though_there_are_as_many_as_causes(self):
        self.assertNotEqual(judge.grouping([event("A", 1), event("B", 2), event("B", 3)], TRUTH), [])

    def test_a_cause_without_an_issue_is_told(self):
        self.assertIn("0 issues for one cause", judge.grouping(RIGHT[:2], TRUTH)[0])

    def test_an_event_of_what_did_not_fail_is_told(self):
        self.assertIn("of no failure", judge.grouping([*RIGHT, event("X", 9)], TRUTH)[0])

    def test_a_failure_that_is_sent_twice_is_told(self):
        self.assertEqual(judge.repeated(RIGHT), [])
        self.assertEqual(len(judge.repeated([*RIGHT, RIGHT[0]])), 1)

    def test_another_service_is_told(self):
        self.assertEqual(judge.services(RIGHT, TRUTH), [])
        self.assertEqual(len(judge.services([event("A", 1, "billing")], TRUTH)), 1)


class Titles(unittest.TestCase):
    def titled(self, text):
        return judge.titles([event("A", 1, title=text)], TRUTH, {cause("a"): "ValueError|has no lines"})

    def test_the_type_or_the_message_will_do(self):
        for text in ["ValueError: x", "GET /orders/{id}: order 5 has no lines", "ValueError"]:
            self.assertEqual(self.titled(text), [])

    def test_a_title_that_says_nothing_is_told(self):
        for text in ["Error", "<unknown>", "500", "", "Error: request failed", "<no log message>"]:
            self.assertEqual(len(self.titled(text)), 1, text)

    def test_a_type_that_everything_has_is_not_enough(self):
        title = next(fault for fault in FAULTS if fault.thrown == "Error").title("development")
        self.assertNotRegex("Error: request failed", title)


class Stored(unittest.TestCase):
    def test_a_title_is_what_bugsink_shows(self):
        self.assertEqual(title("ValueError", "no lines\nin order 7"), "ValueError: no lines")
        self.assertEqual(title("ValueError", ""), "ValueError")
        self.assertEqual(title("Log Message", "it is away"), "it is away")


class Links(unittest.TestCase):
    def test_the_span_has_to_be_there_and_to_have_failed(self):
        one = {("t", "1"): cause("a")}
        for span, problems in [
            (Span(), 0),
            (None, 1),
            (Span(failed=False), 1),
            (Span("CLIENT"), 1),
            (Span(service="other"), 1),
        ]:
            spans = {("t", "1"): span} if span else {}
            self.assertEqual(len(judge.linked([event("A", 1)], spans, one)), problems, span)

    def test_a_conflict_that_counts_as_a_failure_is_no_error_to_opentelemetry(self):
        spans = {("t", "1"): Span(failed=False)}
        self.assertEqual(judge.linked([event("A", 1)], spans, {("t", "1"): cause("a", status=409)}), [])


class Accounts(unittest.TestCase):
    PAGE = """# HELP tracecar_sentry_sent_total Events.
tracecar_sentry_sent_total{kind="event"} 5
tracecar_sentry_sent_total{kind="transaction"} 100
tracecar_sentry_dropped_total{reason="burst_group"} 3
tracecar_sentry_dropped_total{reason="failed"} 0
tracecar_sentry_queued 2
"""

    def test_a_page_is_read(self):
        self.assertEqual(account(metrics(self.PAGE)), {"sent": 5, "queued": 2, "dropped": {"burst_group": 3}})

    def test_a_page_without_these_numbers_is_none(self):
        self.assertIsNone(account(metrics("tracecar_sentry_queued 0\n")))

    def test_sums_have_to_be_exact(self):
        told = {"sent": 5, "queued": 0, "dropped": {"burst_group": 3}}
        self.assertEqual(judge.sums(8, told, 5, "x"), [])
        for failures, stored in [(9, 5), (7, 5), (8, 4), (8, 6)]:
            self.assertEqual(len(judge.sums(failures, told, stored, "x")), 1)
        self.assertEqual(len(judge.sums(9, told | {"queued": 1}, 5, "x")), 1)
        self.assertEqual(len(judge.sums(8, None, 5, "x")), 1)

    def test_in_an_outage_what_waits_counts_too(self):
        told = {"sent": 5, "queued": 2, "dropped": {"failed": 3}}
        self.assertEqual(judge.balance(10, told, "hangs", 5), [])
        self.assertEqual(len(judge.balance(11, told, "hangs", 5)), 1)
        self.assertEqual(len(judge.balance(10, told, "hangs", 4)), 1)
        self.assertEqual(len(judge.balance(10, None, "hangs", 5)), 1)

    def test_a_sentry_that_is_well_gets_everything(self):
        self.assertEqual(
            len(judge.balance(10, {"sent": 5, "queued": 2, "dropped": {"burst": 3}}, "well", 5)), 1
        )

    def test_the_page_of_failures_has_a_group_for_each_cause(self):
        def told(*groups):
            groups = [
                {"count": count, "examples": [{"trace_id": "t", "span_id": str(at)} for at in examples]}
                for count, *examples in groups
            ]
            return judge.page(json.dumps({"groups": groups}), TRUTH, "shop")

        self.assertEqual(told((2, 1, 2), (1, 3)), [])
        self.assertEqual(len(told((3, 1, 3))), 3, "two causes in one group, and none of their own")
        self.assertEqual(len(told((1, 1), (1, 2), (1, 3))), 2, "two groups of one cause")
        self.assertEqual(len(told((2, 1, 2))), 1, "a cause without a group")
        self.assertEqual(len(told((2, 1, 2), (1, 3), (1, 9))), 1, "a group of no failure")
        self.assertEqual(len(judge.page("HTTP Error 404", TRUTH, "shop")), 1)
        self.assertEqual(len(judge.page('{"groups": [{"count": 2}]}', TRUTH, "shop")), 1)


class Secrets(unittest.TestCase):
    def test_a_secret_is_found_in_text_and_in_bytes(self):
        secrets = {"Cookie": "s3cr3t", "query": "h1dd3n"}
        self.assertEqual(judge.found(secrets, [("a span", b"\x00\xffnothing")]), [])
        told = judge.found(secrets, [("a span", b"\x00s3cr3t\xff"), ("the log", b"h1dd3n h1dd3n")])
        self.assertEqual(told, ["the secret in Cookie is in a span", "the secret in query is in the log"])


class Latency(unittest.TestCase):
    def test_noise_is_not_told_and_waiting_is(self):
        healthy = [0.001] * 98 + [0.010] * 2
        self.assertEqual(judge.slower(healthy, [0.0012] * 98 + [0.015] * 2, "x"), [])
        self.assertEqual(len(judge.slower(healthy, [0.003] * 98 + [0.010] * 2, "x")), 1)
        self.assertEqual(len(judge.slower(healthy, [0.001] * 98 + [1.0] * 2, "x")), 1)


class Outages(unittest.TestCase):
    def of(self, issue="A", **times):
        return event(issue, 1, title="nobody listens", tracecar=times)

    def whole(self, issue="A", late=0.0):
        # 1,800,000,000 is a Friday.
        return self.of(issue, began_at="2027-01-15T08:00:00.100Z", ended_at=ENDED + late)

    def test_one_event_with_both_times_is_right(self):
        self.assertEqual(judge.outage([self.whole()], BEGAN, ENDED), [])

    def test_one_more_may_come_when_it_begins(self):
        self.assertEqual(judge.outage([self.of(began_at=BEGAN), self.whole()], BEGAN, ENDED), [])

    def test_anything_else_is_told(self):
        refused = event("A", 2, title="502: connection refused")
        for what, events in {
            "nothing": [],
            "no end": [self.of(began_at=BEGAN)],
            "no times": [refused],
            "two issues": [self.of("B", began_at=BEGAN), self.whole()],
            "twice": [self.whole(), self.whole()],
            "a flood": [refused, refused, self.whole()],
            "a wrong end": [self.whole(late=1.5)],
        }.items():
            self.assertNotEqual(judge.outage(events, BEGAN, ENDED), [], what)

    def test_an_event_that_is_about_something_else_has_no_times(self):
        self.assertIsNone(judge.times_in({"contexts": {"trace": {"ended": None}}, "extra": {"begin": 1}}))


class Slowness(unittest.TestCase):
    def page(self, cause, side="inbound", place="GET /orders/{order}"):
        return {"now": [{"side": side, "place": place, "cause": cause}], "ended": []}

    def test_the_dependency_that_got_slow_has_to_be_named(self):
        self.assertEqual(judge.shifts(self.page("prices"), "prices", "ratings"), [])
        for page in [
            {"now": []},
            self.page("service"),
            self.page("prices", "outbound", "prices"),
            self.page(None),
        ]:
            self.assertEqual(len(judge.shifts(page, "prices", "ratings")), 1, page)

    def test_the_other_one_must_not_be_named(self):
        self.assertEqual(len(judge.shifts(self.page("ratings"), "prices", "ratings")), 2)
        both = {"now": [*self.page("prices")["now"], *self.page("x", "outbound", "ratings")["now"]]}
        self.assertEqual(len(judge.shifts(both, "prices", "ratings")), 1)

    def test_nothing_is_said_and_counted_while_all_is_well(self):
        page, counters = {"now": [], "ended": []}, {(judge.SHIFTS, (("side", "inbound"),)): 0.0}
        self.assertEqual(judge.quiet(page, counters), [])
        self.assertEqual(len(judge.quiet(self.page("prices"), counters)), 1)
        self.assertEqual(len(judge.quiet({"now": [], "ended": self.page("x")["now"]}, counters)), 1)
        self.assertEqual(len(judge.quiet(page, dict.fromkeys(counters, 1.0))), 1)
        self.assertEqual(len(judge.quiet(page, {})), 1)


class Causes(unittest.TestCase):
    def test_what_production_hides_nobody_can_tell_apart(self):
        here = [fault for fault in FAULTS if fault.thrown and fault.template == "/orders/{number}"]
        self.assertEqual(len(here), 2)
        self.assertEqual(len({fault.cause("production") for fault in here}), 1)
        self.assertEqual(len({fault.cause("development") for fault in here}), 2)

    def test_each_fault_happens_and_no_two_requests_are_the_same_by_design(self):
        made = requests(1000, 500, 1)
        self.assertEqual(len(made), 1500)
        self.assertEqual(sum(request.cause is not None for request in made), 1000)
        self.assertEqual(
            len({(request.fault, request.mode) for request in made if request.fault}), 2 * len(FAULTS)
        )
        self.assertGreater(len({request.path for request in made}), 1300)
        self.assertEqual(made, requests(1000, 500, 1))

    def test_causes_are_as_many_as_can_be_told_apart(self):
        counts = Counter(fault.cause(mode) for mode in MODES for fault in FAULTS)
        self.assertEqual(max(counts.values()), 2)
        self.assertEqual(len(counts), 60)


if __name__ == "__main__":
    unittest.main()
