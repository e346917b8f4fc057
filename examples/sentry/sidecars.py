"""The three apps in two modes, with a tracecar in front of each, and what the admin pages say."""

import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path

from causes import MODES
from common import TRACECAR_READY, free_ports

HERE = Path(__file__).parent
UVICORN = r"Uvicorn running on http://([\d.]+):(\d+)"
GUNICORN = r"Listening at: http://([\d.]+):(\d+)"
NODE = r"listening at http://([\d.]+):(\d+)"

# Express gets none: there the paths themselves have to be understood.
ROUTES = {
    "shop": [
        "/orders/{number}",
        "/items/{item}",
        "/sessions/{session}",
        "/customers/{email}",
        "/search",
        "/payments/{payment}",
    ],
    "billing": ["/invoices/{number}", "/accounts/{account}", "/rates/{amount}", "/charges/{charge}"],
    "stock": [],
}


class Sidecar:
    """A tracecar in front of a service."""

    def __init__(self, programs, options, service, to, collector, dsn=None, **more):
        self.service, self.to = service, to
        self.admin = free_ports(1)[0]
        config = settings(service, to, self.admin, collector, dsn) | more
        # What is JSON is YAML.
        file = options.work / f"{service}.yaml"
        file.write_text(json.dumps(config, indent=2))
        self.address = programs.start(
            f"tracecar-{service}",
            TRACECAR_READY,
            options.tracecar,
            "run",
            "--config",
            file,
            RUST_BACKTRACE="1",
        )

    def page(self, path, **headers):
        """An admin page as text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()

    def metrics(self):
        return metrics(self.page("/metrics"))

    def account(self):
        return account(self.metrics())


def settings(service, to, admin, collector, dsn):
    """A configuration, without Sentry if there is no DSN."""
    config = {
        "service": {"name": service},
        "inbound": [{"listen": "127.0.0.1:0", "to": "http://{}:{}".format(*to)}],
        "export": {
            "otlp": {"endpoint": collector.url, "queue": {"schedule_delay": "200ms"}},
            "console": "off",
        },
        "admin": {"listen": f"127.0.0.1:{admin}"},
    }
    if dsn:
        # The limit of all groups together is out of the way: with it, issues could be missing.
        config["sentry"] = {"dsn": dsn, "environment": "examples", "release": "1.2.3", "max_events": 100_000}
    return config


def metrics(page):
    """A metrics page as numbers by name and labels: {("name", (("label", "value"), …)): 1.0}."""
    found = {}
    for name, labels, number in re.findall(r"^(\w+)(?:\{(.*?)\})? (\S+)", page, re.MULTILINE):
        found[name, tuple(re.findall(r'(\w+)="(.*?)"', labels))] = float(number)
    return found


def account(numbers):
    """What became of events: sent, queued, and dropped by reason; None where tracecar says nothing of it."""
    names = {name for name, _ in numbers}
    wanted = {"tracecar_sentry_sent_total", "tracecar_sentry_dropped_total", "tracecar_sentry_queued"}
    if not wanted <= names:
        return None
    sent = {
        labels: number for (name, labels), number in numbers.items() if name == "tracecar_sentry_sent_total"
    }
    dropped = {
        labels: number
        for (name, labels), number in numbers.items()
        if name == "tracecar_sentry_dropped_total"
    }
    return {
        "sent": int(sum(number for labels, number in sent.items() if ("kind", "transaction") not in labels)),
        "queued": int(numbers["tracecar_sentry_queued", ()]),
        "dropped": {dict(labels)["reason"]: int(number) for labels, number in dropped.items() if number},
    }


def accounted(told):
    """How many failures an account knows of."""
    return told["sent"] + told["queued"] + sum(told["dropped"].values())


def wait_for(condition, seconds, every=0.2):
    """Waits until a condition holds; returns whether it does."""
    until = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < until:
        time.sleep(every)
    return held


def uvicorn(app, port=0):
    return [
        UVICORN,
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        HERE,
        "--port",
        port,
        "--no-access-log",
        "--no-use-colors",
        f"{app}:app",
    ]


def gunicorn(app, threads=8):
    bind = f"127.0.0.1:{free_ports(1)[0]}"
    # The control socket has one place for all of a user.
    return [
        GUNICORN,
        sys.executable,
        "-m",
        "gunicorn",
        "--no-control-socket",
        "--bind",
        bind,
        "--threads",
        threads,
        "--chdir",
        HERE,
        f"{app}:app",
    ]


def start_all(programs, options, collector, dsn):
    """The apps in both modes, and a tracecar before each: {service: Sidecar}."""
    commands = {"shop": uvicorn("shop"), "billing": None, "stock": [NODE, "node", HERE / "stock.cjs"]}
    started = {}
    for mode in MODES:
        debug = "1" if mode == "development" else "0"
        for app, command in commands.items():
            service = f"{app}-{mode}"
            to = programs.start(
                service, *(command or gunicorn(app)), DEBUG=debug, NODE_ENV=mode, PYTHONPATH=HERE
            )
            more = {"routes": ROUTES[app]}
            if app == "shop" and dsn:
                # A conflict is a failure where an order changes, and nowhere else.
                more["failures"] = {"statuses": [{"route": "/orders/{number}", "status": [409]}]}
            started[service] = Sidecar(programs, options, service, to, collector, dsn, **more)
    return started


def cache():
    """Where what is made once stays: beside the virtual environment."""
    return Path(os.environ.get("SENTRY_CACHE") or Path(sys.prefix).parent / "sentry-cache")
