"""The orders: Starlette and httpx, for uvicorn's one process. They call the stock, and pass no header on."""

import asyncio
import contextlib
import os
import random
import uuid

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from truth import note

STOCK = os.environ["STOCK_URL"]
WITH_IDS = os.environ["CALLS"] == "ids"
# The share of requests that make a call after they have been answered.
LATE = float(os.environ["LATE"])
# Calls per second that no request causes.
BACKGROUND = float(os.environ["BACKGROUND"])


async def order(request):
    number, served = request.path_params["number"], uuid.uuid4().hex
    await work()
    status = await call(served, "call", number)
    await work()
    task = BackgroundTask(late, served, number) if random.random() < LATE else None
    return PlainTextResponse("ordered\n", 200 if status == 200 else 502, {"x-served": served}, background=task)


async def call(served, kind, number):
    response = await client.get(f"{STOCK}/stock/{number if WITH_IDS else 'next'}")
    note(served, kind, response.headers)
    return response.status_code


async def late(served, number):
    await asyncio.sleep(random.uniform(0.005, 0.1))
    await call(served, "late", number)


async def background(ending):
    while not ending.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), random.expovariate(BACKGROUND))
            return
        await call(None, "background", uuid.uuid4())


async def work():
    await asyncio.sleep(random.uniform(0, 0.005))


@contextlib.asynccontextmanager
async def lifespan(_):
    global client
    ending = asyncio.Event()
    async with httpx.AsyncClient(timeout=30) as client:
        task = asyncio.create_task(background(ending)) if BACKGROUND else None
        yield
        ending.set()
        if task:
            await task


app = Starlette(routes=[Route("/orders/{number}", order)], lifespan=lifespan)
