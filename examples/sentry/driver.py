"""Makes requests through tracecar, and notes what is known of each."""

import http.client
import itertools
import threading
import time
from dataclasses import dataclass, field

from common import TIMING

# What clients say they take: some get pages, some text, some of it compressed.
CLIENTS = [
    {"accept": "*/*", "user-agent": "curl/8.16.0"},
    {"accept": "application/json, text/plain, */*", "accept-encoding": "gzip, deflate"},
    {
        "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "accept-encoding": "gzip, deflate",
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    },
    {},
]


@dataclass
class Answer:
    """What came back, and how long it took. `key` is the trace and the span that `Server-Timing` told of."""

    asked: object
    status: int | None
    body: bytes
    key: tuple | None
    seconds: float
    at: float = field(default_factory=time.time)


def ask(connections, address, asked, headers):
    """Asks once. A connection is kept for the next question."""
    began = time.perf_counter()
    connection = connections.setdefault(address, http.client.HTTPConnection(*address, timeout=60))
    status, body, timing = None, b"", None
    try:
        connection.request(asked.method, asked.path, headers=headers)
        response = connection.getresponse()
        status, timing = response.status, response.headers["server-timing"]
        body = response.read()
    except http.client.IncompleteRead as error:
        body = error.partial
        connection.close()
    except OSError:
        connection.close()
    key = TIMING.search(timing or "")
    return Answer(asked, status, body, key and key.groups()[:2], time.perf_counter() - began)


def drive(requests, address_of, in_flight=8, per_second=None):
    """Makes requests, `in_flight` at a time or so many per second, and returns the answers in no order."""
    answers, left, lock = [], iter(enumerate(requests)), threading.Lock()
    began = time.monotonic()

    def one_after_another():
        connections = {}
        while True:
            with lock:
                at, asked = next(left, (None, None))
            if asked is None:
                break
            if per_second:
                time.sleep(max(0, began + at / per_second - time.monotonic()))
            answer = ask(connections, address_of(asked), asked, CLIENTS[at % len(CLIENTS)])
            with lock:
                answers.append(answer)
        for connection in connections.values():
            connection.close()

    threads = [threading.Thread(target=one_after_another) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def unexpected(answers):
    """Requests that did not end as they should: then nothing can be said of what was made of them."""
    told = []
    for answer in answers:
        if answer.status != answer.asked.status:
            told.append(f"{answer.asked.service} {answer.asked.path} was answered with {answer.status}")
        elif answer.key is None:
            told.append(f"{answer.asked.service} {answer.asked.path}: no Server-Timing came back")
    return [*told[:5], *([f"… and {len(told) - 5} more"] if len(told) > 5 else [])]


def repeat(make):
    """Requests without end."""
    return (make(number) for number in itertools.count())
