"""The billing: Flask, as somebody might write it. The last digit decides what goes wrong."""

import os

from flask import Flask, jsonify
from werkzeug.debug import DebuggedApplication
from werkzeug.exceptions import ServiceUnavailable

app = Flask(__name__)
if os.environ.get("DEBUG") == "1":
    app.debug = True
    app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=False)


class AccountFrozen(Exception):
    pass


class RateMissing(Exception):
    pass


def address(number):
    return f"192.168.{number % 250}.{number % 13}"


@app.get("/invoices/<int:number>")
def invoice(number):
    match number % 10:
        case 1:
            return {}[f"tax-{number}"]
        case 2:
            raise ValueError(f"invoice {number} is from 2026-{number % 12 + 1:02}-{number % 28 + 1:02}")
        case 3:
            told = f"The ledger at {address(number)} is closed until 16:{number % 60:02}:00."
            raise ServiceUnavailable(told, retry_after=30)
        case 4:
            told = f"tax service {address(number)}:9000 timed out after {3000 + number % 100} ms"
            return jsonify(error={"code": "tax_timeout", "message": told}), 504
        case 6:
            return jsonify(message=f"row {number * 7} is locked"), 500
        case 7:
            return jsonify(message=f"there is no invoice {number}"), 404
    return jsonify(invoice=number)


@app.get("/accounts/<uuid:account>")
def show(account):
    if account.hex[-1] in "0123":
        raise AccountFrozen(f"account {account} of owner{account.hex[:3]}@example.net is frozen")
    return jsonify(account="open")


@app.get("/rates/<int:amount>")
def rate(amount):
    try:
        return {}[amount]
    except KeyError as error:
        raise RateMissing(f"no rate for {amount / 100:.2f} EUR") from error


@app.post("/charges/<charge>")
def charge(charge):
    if charge[-1] in "0123":
        told = {"code": "processor", "message": f"the processor lost charge {charge}"}
        return jsonify(errors=[told]), 502
    return jsonify(charged=True)
