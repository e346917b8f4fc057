"""The judges of the chain, judged: a score that cannot be bad says nothing."""

import tempfile
import unittest
from dataclasses import dataclass, field
from pathlib import Path

import graph
import score

TRACE, OTHER = "a" * 32, "b" * 32


@dataclass
class Span:
    service: str
    kind: str
    key: tuple
    parent: tuple | None = None
    failed: bool = False
    attributes: dict = field(default_factory=dict)
    links: list = field(default_factory=list)


def pair(trace="t", parent=("t", "shop"), method="token", links=(), **attributes):
    """A call from the shop to the orders, made for the SERVER span (t, shop)."""
    said = {
        "tracecar.lineage.method": method,
        **{f"tracecar.lineage.{name}": each for name, each in attributes.items()},
    }
    client = Span("shop", "CLIENT", (trace, "call"), parent, attributes=said, links=list(links))
    server = Span("orders", "SERVER", (trace, "orders"), client.key)
    call = score.Call("shop", "orders", "call", ("t", "shop"), server.key)
    return call, {span.key: span for span in (client, server)}


class Judging(unittest.TestCase):
    def test_the_cause_as_parent_is_right(self):
        self.assertEqual(score.judge(*pair()), score.Verdict("right", "token"))

    def test_another_parent_is_wrong(self):
        self.assertEqual(score.judge(*pair(parent=("t", "other"))), score.Verdict("wrong", "token"))

    def test_no_parent_is_unknown_and_its_links_are_looked_at(self):
        for links, linked in [([("t", "shop")], True), ([("u", "other")], False)]:
            verdict = score.judge(*pair("new", None, "none", links, candidates=1))
            self.assertEqual(verdict, score.Verdict("unknown", "none", linked))

    def test_no_parent_is_right_for_a_call_without_a_cause(self):
        call, spans = pair("new", None, "none")
        background = score.Call("shop", "orders", "background", None, call.reached)
        self.assertEqual(score.judge(background, spans).word, "right")
        self.assertEqual(score.judge(background, pair()[1]).word, "broken")

    def test_a_parent_for_a_call_without_a_cause_is_wrong(self):
        call, spans = pair()
        self.assertEqual(
            score.judge(score.Call("shop", "orders", "background", None, call.reached), spans).word, "wrong"
        )

    def test_spans_that_do_not_hold_together_are_broken(self):
        call, spans = pair()
        cases = {
            "nothing": {},
            "no CLIENT span": {call.reached: spans[call.reached]},
            "a root for a method": pair("t", None)[1],
            "a parent for none": pair(method="none")[1],
            "a confidence of 7": pair(confidence=7)[1],
            "too few links": pair("t", None, "none", [("t", "shop")], candidates=2)[1],
        }
        for what, spans in cases.items():
            self.assertEqual(score.judge(call, spans).word, "broken", what)

    def test_truth_is_joined_over_the_ids_that_were_served(self):
        timing = "cache, trace;desc=00-{}-{}-01"
        with tempfile.TemporaryDirectory() as place:
            file = Path(place, "shop.truth")
            line = '{"cause": %s, "kind": "call", "timing": "%s", "served": "%s"}\n'
            file.write_text(
                line % ('"one"', timing.format(TRACE, "2" * 16), "two")
                + line % ("null", timing.format(OTHER, "3" * 16), "three")
            )
            found = score.calls([("one", timing.format(TRACE, "1" * 16))], {("shop", "orders"): file})
        self.assertEqual([call.cause for call in found], [(TRACE, "1" * 16), None])
        self.assertEqual([call.reached for call in found], [(TRACE, "2" * 16), (OTHER, "3" * 16)])

    def test_a_trace_is_whole_if_every_call_below_it_is_right(self):
        requests = [("one", f"trace;desc=00-{TRACE}-{'1' * 16}-01")]
        below = score.Call("shop", "orders", "call", (TRACE, "1" * 16), (TRACE, "2" * 16))
        deeper = score.Call("orders", "stock", "call", (TRACE, "2" * 16), (OTHER, "3" * 16))
        right = (below, score.Verdict("right"))
        self.assertEqual(score.whole(requests, [right, (deeper, score.Verdict("right"))]), 1)
        self.assertEqual(score.whole(requests, [right, (deeper, score.Verdict("unknown"))]), 0)

    def test_bounds_that_are_not_kept_are_told(self):
        call = pair()[0]
        judged = [(call, score.Verdict("right"))] * 99 + [(call, score.Verdict("wrong"))]
        self.assertEqual(score.missed(judged, [(None, 99), ("shop", 99), ("shop->orders", 99)], 1), [])
        self.assertEqual(len(score.missed(judged, [(None, 99.5), ("shop", 99.5), ("stock", 1)], 0.5)), 5)

    def test_what_one_method_leaves_unknown_does_not_make_another_right(self):
        call = pair()[0]
        judged = [(call, score.Verdict("unknown", "none"))] * 990
        judged += [(call, score.Verdict("right", "process"))] * 9 + [(call, score.Verdict("wrong", "process"))]
        told = score.missed(judged, [], 0.5)
        self.assertEqual(told, ["10.0 % of process are wrong, more than 0.5 %"])
        self.assertEqual(score.missed(judged, [], 10), [])

    def test_a_guess_is_told_apart_and_bounded_as_a_method_of_its_own(self):
        guess = score.judge(*pair(parent=("t", "other"), method="sole", confidence=0.6))
        self.assertEqual(guess, score.Verdict("wrong", "sole (a guess)"))
        self.assertEqual(score.judge(*pair(method="sole", confidence=0.9)).method, "sole")
        call = pair()[0]
        judged = [(call, guess)] + [(call, score.Verdict("unknown", "none"))] * 199
        told = ["100.0 % of sole (a guess) are wrong, more than 0.5 %"]
        self.assertEqual(score.missed(judged, [], 0.5), told)

    def test_shares_are_never_rounded_to_all_or_nothing(self):
        self.assertEqual([score.share(1, 100000), score.share(99999, 100000), score.share(0, 5)], [0.01, 99.99, 0.0])


class Graphs(unittest.TestCase):
    def spans(self):
        root = Span("shop", "SERVER", ("t", "shop"))
        return [root, *pair()[1].values()]

    def test_a_client_and_the_server_right_below_it_are_an_edge(self):
        edges, unpaired = graph.graph(self.spans())
        self.assertEqual(set(edges), {("user", "shop", "virtual_node"), ("shop", "orders", "")})
        self.assertEqual(unpaired, 0)

    def test_a_span_in_between_breaks_the_edge(self):
        root, client, server = self.spans()
        between = Span("orders", "INTERNAL", ("t", "between"), client.key)
        server.parent = between.key
        self.assertEqual(graph.graph([root, client, between, server])[1], 2)

    def test_either_end_makes_an_edge_fail(self):
        for end in (1, 2):
            spans = self.spans()
            spans[end].failed = True
            self.assertEqual(graph.graph(spans)[0]["shop", "orders", ""].failed, 1)

    def test_a_client_without_a_server_is_an_edge_only_by_a_peer_attribute(self):
        root, client, _ = self.spans()
        self.assertEqual(graph.graph([root, client])[1], 1)
        client.attributes["service.peer.name"] = "bank"
        self.assertEqual(graph.graph([root, client])[1], 1)
        client.attributes["peer.service"] = "bank"
        self.assertIn(("shop", "bank", "virtual_node"), graph.graph([root, client])[0])

    def test_another_graph_than_expected_is_told(self):
        expected = {("user", "shop"): 1, ("shop", "orders"): 1}
        self.assertEqual(graph.problems(self.spans(), expected), [])
        for spans in (self.spans()[:2], [*self.spans(), Span("leaf", "SERVER", ("u", "leaf"))]):
            self.assertNotEqual(graph.problems(spans, expected), [])


if __name__ == "__main__":
    unittest.main()
