"""An app that asks two others for each order, and passes nothing on but the order's id."""

import http.client
import os
import threading
import time
from urllib.parse import urlsplit

from flask import Flask, jsonify

app = Flask(__name__)
connections = threading.local()


def ask(name, path):
    """A connection is kept for each thread."""
    kept = vars(connections)
    if name not in kept:
        kept[name] = http.client.HTTPConnection(
            urlsplit(os.environ[f"{name.upper()}_URL"]).netloc, timeout=30
        )
    try:
        kept[name].request("GET", path)
        return kept[name].getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        kept.pop(name).close()
        raise


@app.get("/orders/<order>")
def show(order):
    price = ask("prices", f"/prices/{order}")
    time.sleep(0.004)
    rating = ask("ratings", f"/ratings/{order}")
    return jsonify(price=price, rating=rating)
