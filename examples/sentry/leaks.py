"""Plants secrets where they are found in the wild, and looks for each in all that tracecar tells."""

import argparse
import base64
import http.client
import itertools
import json
import random
import socket
import string
import sys
from pathlib import Path

import failures
import judge
from common import TIMING, Collector, Programs
from fake import Fake
from server import Bugsink, Event
from sidecars import Sidecar, cache, gunicorn, wait_for

# Those that the app itself gives away.
OWN = [
    "a JSON field password",
    "a nested JSON field access_token",
    "a JSON field api_key in a list",
    "a JSON field clientSecret",
    "a connection string",
    "a bearer token in a message",
    "a password= in a message",
    "a query in a message",
    "JSON in a message",
    "a JWT in a message",
    "an environment variable in a message",
    "a URL on a page",
    "a line of source",
    "a line of a traceback",
    "a cookie in a traceback",
    "Set-Cookie",
    "X-Auth-Token of an answer",
    "userinfo in Location",
    "WWW-Authenticate",
]
# How many messages, pages and so on are asked for: each of the app's messages at least once.
EACH = 7


class Secrets:
    """Words that nobody knows, by where they were put."""

    def __init__(self, seed):
        self._random, self.planted = random.Random(seed), {}

    def make(self, where):
        # Letters and digits are the same in a URL, in JSON, and in HTML.
        made = "".join(self._random.choices(string.ascii_letters + string.digits, k=28))
        if "JWT" in where:
            head, body = (
                base64.urlsafe_b64encode(each).decode().rstrip("=")
                for each in (b'{"alg":"HS256"}', b'{"sub":7}')
            )
            self.planted[where] = made
            return f"{head}.{body}.{made}"
        self.planted[where] = made
        return made

    def basic(self, where):
        """User and password as they go into `Authorization`: what is planted is that, and the password."""
        made = base64.b64encode(f"user:{self.make(where)}".encode()).decode()
        # The whole may be cut or padded elsewhere, the middle stays.
        self.planted[f"{where}, as it is sent"] = made[4:-4]
        return f"Basic {made}"


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where logs and the database stay")
    options.add_argument("--quick", action="store_true", help="the same: this is quick")
    options = options.parse_args()
    if options.keep:
        options.work = options.keep.resolve()
        options.work.mkdir(parents=True)
    return options


def questions(secrets):
    """Requests with secrets in them, all of which fail: (method, target, headers, body)."""
    sent = secrets.make
    number = itertools.count()
    fails = lambda: f"/fails/{next(number)}"  # noqa: E731
    yield "GET", fails(), {"authorization": f"Bearer {sent('Authorization: Bearer')}"}, None
    yield "GET", fails(), {"authorization": secrets.basic("Authorization: Basic")}, None
    yield "GET", fails(), {"authorization": sent("Authorization without a scheme")}, None
    yield "GET", fails(), {"proxy-authorization": secrets.basic("Proxy-Authorization")}, None
    yield "GET", fails(), {"cookie": f"session={sent('Cookie')}; theme={sent('an innocent Cookie')}"}, None
    for name in [
        "X-Api-Key",
        "X-Auth-Token",
        "X-My-Secret",
        "X-CSRF-Token",
        "X-Amz-Security-Token",
        "Ocp-Apim-Key",
    ]:
        yield "GET", fails(), {name: sent(name)}, None
    yield "GET", fails(), {"referer": f"https://example.com/reset?token={sent('Referer with a token')}"}, None
    yield "GET", fails(), {"referer": f"https://u:{sent('Referer with userinfo')}@example.com/"}, None
    yield "GET", f"{fails()}?token={sent('query token')}&page=2", {}, None
    yield "GET", f"{fails()}?q={sent('query of an innocent name')}", {}, None
    yield "GET", f"{fails()}?{sent('query without a name')}", {}, None
    body = {
        "user": "anna",
        "password": sent("a JSON request body"),
        "note": sent("an innocent field of a request"),
    }
    yield "POST", fails(), {"content-type": "application/json"}, json.dumps(body)
    form = f"user=anna&password={sent('a form')}"
    yield "POST", fails(), {"content-type": "application/x-www-form-urlencoded"}, form
    echoed = {
        "password": sent("a request body that is echoed"),
        "card": {"cvc_token": sent("the same, nested")},
    }
    yield "POST", "/echo/1", {"content-type": "application/json"}, json.dumps(echoed)
    for place in ["fields", "messages", "pages", "text", "cookies"]:
        for each in range(EACH):
            yield "GET", f"/{place}/{each}", {}, None


def ask(address, method, target, headers, body):
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    key = TIMING.search(response.headers["server-timing"] or "")
    return response.status, key and key.groups()[:2]


def ask_absolutely(address, secret):
    """A target with a user and a password in it, as proxies are sent it. It may be refused."""
    with socket.create_connection(address, timeout=30) as connection:
        told = f"GET http://user:{secret}@{address[0]}/fails/999 HTTP/1.1\r\nhost: {address[0]}\r\n"
        connection.sendall(f"{told}connection: close\r\n\r\n".encode())
        while connection.recv(65536):
            pass


def main():
    options = parse()
    secrets = Secrets(options.seed)
    own = {name: secrets.make(name) for name in OWN}
    problems = []
    with Programs(options.work) as programs:
        bugsink = Bugsink(programs, options.work, cache())
        project, dsn = bugsink.project("leaks")
        to = programs.start("leaky", *gunicorn("leaky"), SECRETS=json.dumps(own))
        print("bugsink, a server that people have, which wants no transactions:")
        problems += plant(
            programs, options, to, secrets, dsn, lambda: bugsink.events(project), bugsink.everything, "leaky"
        )
        print("one that takes whatever it is sent, transactions as well:")
        fake = Fake()
        taken = lambda: [Event("-", each, str(each.get("exception"))) for each in fake.events]  # noqa: E731
        kept = lambda: [("an envelope", each) for each in fake.envelopes]  # noqa: E731
        problems += plant(programs, options, to, secrets, fake.dsn, taken, kept, "leaky-too")
        fake.close()
        if not fake.attempts["transaction"]:
            problems.append("no transactions were sent, so that nothing is known of them")
    return failures.conclude(problems)


def plant(programs, options, to, secrets, dsn, taken, kept, service):
    """Has everything fail with secrets in it, and looks for them in what is `kept`; `taken` are events."""
    collector = Collector()
    access_log = options.work / f"{service}.access.log"
    sidecar = Sidecar(
        programs,
        options,
        service,
        to,
        collector,
        dsn,
        routes=["/fails/{number}", "/{what}/{number}"],
        access_log={"enabled": True, "path": str(access_log)},
        # Whoever looks for a fault turns this on.
        log="debug",
        sentry={
            "dsn": dsn,
            "environment": "examples",
            "max_per_group": 1000,
            "max_events": 100_000,
            "traces": "transactions",
            "traces_sample_rate": 1.0,
        },
    )
    problems, keys = [], {}
    for question in questions(secrets):
        status, key = ask(sidecar.address, *question)
        if status < 500 or key is None:
            problems.append(f"{question[0]} {question[1]} was answered with {status}")
        keys[key] = question[1]
    # By a proxy's client, and not by anybody's who means well.
    ask_absolutely(sidecar.address, secrets.make("userinfo of a target"))
    if sidecar.account() is None:
        problems.append("there are no metrics tracecar_sentry_*")
    else:
        wait_for(lambda: keys.keys() <= {event.key for event in taken()}, 20, 0.5)
        wait_for(lambda: not sidecar.account()["queued"], 20)
    pages = {path: readable(sidecar, path) for path in ["/errors", "/slow", "/metrics", "/config"]}
    problems += programs.stop("tracecar")

    events = taken()
    if missing := [target for key, target in keys.items() if key not in {event.key for event in events}]:
        problems.append(f"{len(missing)} of {len(keys)} failures are no event, such as {missing[0]}")
    # Where nothing is found something else has to be, or the search is no search.
    titles = "\n".join(event.title for event in events)
    for name, text in (("the titles", titles), ("/errors", pages["/errors"])):
        if "canary" not in text:
            problems.append(f"{service}: of what the app said there is nothing in {name}")
    places = [
        *kept(),
        *((f"tracecar's page {path}", text.encode()) for path, text in pages.items()),
        ("tracecar's log", (options.work / f"tracecar-{service}.log").read_bytes()),
        ("the access log", access_log.read_bytes() if access_log.exists() else b""),
        *(("a span", span.span.SerializeToString()) for span in collector.spans),
    ]
    size = sum(len(content) for _, content in places)
    print(f"  {len(secrets.planted)} secrets in {len(keys)} failures, of which {len(events)} are events")
    print(f"  looked for in {len(places)} places, {size / 1e6:.1f} MB")
    return problems + judge.found(secrets.planted, places)


def readable(sidecar, path):
    """What a page says, or why it says nothing."""
    try:
        return sidecar.page(path)
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
