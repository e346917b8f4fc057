"""The shop: WSGI and requests, for gunicorn's processes. It calls the orders, and passes no header on."""

import os
import random
import threading
import time
import uuid

import requests

from truth import note

ORDERS = os.environ["ORDERS_URL"]
WITH_IDS = os.environ["CALLS"] == "ids"
# The share of requests that make a call after they have been answered.
LATE = float(os.environ["LATE"])
# Calls per second that no request causes, here in one of several processes.
BACKGROUND = float(os.environ["BACKGROUND"]) / int(os.environ["WEB_CONCURRENCY"])

session = requests.Session()


def app(environ, start_response):
    order, served = environ["PATH_INFO"].rsplit("/", 1)[1], uuid.uuid4().hex
    work()
    status = call(session, served, "call", order)
    work()
    if random.random() < LATE:
        threading.Timer(random.uniform(0.005, 0.1), late, (served, order)).start()
    start_response("200 OK" if status == 200 else "502 Bad Gateway", [("x-served", served), ("content-length", "7")])
    return [b"bought\n"]


def call(session, served, kind, order):
    response = session.get(f"{ORDERS}/orders/{order if WITH_IDS else 'next'}", timeout=30)
    note(served, kind, response.headers)
    return response.status_code


def late(served, order):
    with requests.Session() as session:
        call(session, served, "late", order)


def background():
    with requests.Session() as session:
        while True:
            # Not a daemon, so that a call which has begun also ends.
            threading.main_thread().join(random.expovariate(BACKGROUND))
            if not threading.main_thread().is_alive():
                return
            call(session, None, "background", uuid.uuid4())


def work():
    time.sleep(random.uniform(0, 0.005))


if BACKGROUND:
    threading.Thread(target=background).start()
