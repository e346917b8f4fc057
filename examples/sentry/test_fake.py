"""The Sentry that can be unwell, with Sentry's own SDK."""

import http.client
import unittest

import sentry_sdk

from fake import Fake, items


class Envelopes(unittest.TestCase):
    def test_items_with_and_without_a_length_are_read(self):
        body = (
            b'{}\n{"type":"event","length":2}\n{}\n{"type":"event"}\n{"a":1}\n{"type":"event","length":2}\n{}'
        )
        self.assertEqual([payload for _, payload in items(body)], [b"{}", b'{"a":1}', b"{}"])

    def test_a_wrong_length_is_an_error(self):
        for body in [b'{}\n{"length":3}\n{}\n{}', b'{}\n{"length":9}\n{}', b"{\n"]:
            with self.assertRaises(ValueError):
                list(items(body))


class Moods(unittest.TestCase):
    def told(self, mood, events=1):
        fake = Fake(mood)
        self.addCleanup(fake.close)
        client = sentry_sdk.Client(fake.dsn, default_integrations=False, auto_enabling_integrations=False)
        for _ in range(events):
            client.capture_event({"message": "hello"})
            client.flush(1)
        return fake

    def test_one_that_is_well_takes_events(self):
        fake = self.told("well", 3)
        self.assertEqual([event["message"] for event in fake.events], ["hello"] * 3)
        self.assertEqual(fake.problems, [])

    def test_others_take_none(self):
        for mood in ["down", "hangs", "limited", "too large", "broken"]:
            fake = self.told(mood)
            self.assertEqual((fake.events, fake.attempts["event"]), ([], int(mood != "down")), mood)

    def test_who_was_told_of_a_limit_comes_no_more(self):
        self.assertEqual(self.told("limited", 3).attempts["event"], 1)
        self.assertEqual(len(self.told("quietly limited", 3).events), 1)

    def test_what_is_no_envelope_is_a_problem(self):
        fake = Fake()
        self.addCleanup(fake.close)
        for path, key, body in [
            ("/api/42/envelope/", "5" * 32, b"nonsense"),
            ("/api/42/store/", "5" * 32, b'{}\n{"type":"event"}\n{}'),
            ("/api/42/envelope/", "4" * 32, b'{}\n{"type":"event"}\n{}'),
        ]:
            connection = http.client.HTTPConnection("127.0.0.1", fake.port)
            connection.request(
                "POST", path, body, {"x-sentry-auth": f"Sentry sentry_version=7, sentry_key={key}"}
            )
            self.assertEqual(connection.getresponse().status, 400)
            connection.close()
        self.assertEqual((len(fake.problems), fake.events), (3, []))


if __name__ == "__main__":
    unittest.main()
