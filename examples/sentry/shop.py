"""The shop: FastAPI, as somebody might write it. The last digit decides what goes wrong."""

import os

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

# In development an exception that nobody caught is answered with a traceback, in production with three words.
app = FastAPI(title="shop", debug=os.environ.get("DEBUG") == "1")
PRICES = {}


class SessionExpired(Exception):
    pass


class NoRate(Exception):
    pass


def address(number):
    return f"10.{number % 7}.{number % 250}.{number % 13}"


def price(number):
    return PRICES[f"order-{number}"]


def rate(pieces):
    try:
        return {}[pieces]
    except KeyError:
        raise NoRate(f"no rate for {pieces} pieces at {pieces * 0.31:.2f} EUR") from None


@app.get("/orders/{number}")
async def order(number: int):
    match number % 10:
        case 1:
            return price(number)
        case 2:
            raise ValueError(f"order {number} has a total of -{number / 100:.2f} EUR")
        case 3:
            detail = f"warehouse at {address(number)}:8443 does not answer"
            raise HTTPException(503, detail, headers={"retry-after": "7"})
        case 4:
            raise HTTPException(500, f"order {number} has no lines")
        case 5:
            raise HTTPException(409, f"order {number} is being changed by clerk{number}@example.com")
        case 6:
            raise HTTPException(500, f"row {number * 7} is locked")
        case 7:
            raise HTTPException(404, f"there is no order {number}")
    return {"order": number}


@app.get("/items/{item}")
async def item(item: int):
    match item % 10:
        case 1:
            raise RuntimeError(f"row {item} is locked")
        case 5:
            raise HTTPException(409, f"item {item} is being counted")
        case 6:
            raise HTTPException(500, f"row {item * 3} is locked")
        case 7:
            return rate(item)
    return {"item": item}


@app.get("/sessions/{session}")
async def session(session: str):
    if session[-1] in "0123":
        raise SessionExpired(f"session {session} ended at 2026-11-21T16:{int(session[0], 16) + 10}:27Z")
    return {"session": "open"}


@app.get("/customers/{email}")
async def customer(email: str):
    if email.endswith("@example.org"):
        told = {"code": "crm_refused", "message": f"CRM at {address(len(email) * 31)} said no for {email}"}
        raise HTTPException(502, told)
    return {"customer": "known"}


@app.get("/search")
async def search(q: str):
    if q.endswith("7"):
        return JSONResponse({"error": f"search {q} took longer than {3000 + len(q)} ms"}, 504)
    return {"found": []}


@app.post("/payments/{payment}")
async def pay(payment: str):
    if payment[-1] in "0123":
        problem = {
            "type": "https://example.com/problems/refused",
            "title": "Payment refused",
            "status": 500,
            "detail": f"payment {payment} over {int(payment[:4], 16) / 100:.2f} EUR was refused",
            "instance": f"/payments/{payment}",
        }
        return JSONResponse(problem, 500, media_type="application/problem+json")
    return {"paid": True}
