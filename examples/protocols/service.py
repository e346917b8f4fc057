"""A service that streams in every way a browser knows. It knows nothing of tracing."""

import asyncio
import hashlib
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

MIB = 1024 * 1024
results = asyncio.Queue()


async def echo(request):
    """What came, without keeping it."""
    length, digest = 0, hashlib.sha256()
    async for piece in request.stream():
        length += len(piece)
        digest.update(piece)
    return JSONResponse({"method": request.method, "length": length, "sha256": digest.hexdigest()})


async def download(_):
    async def pieces():
        for number in range(160):
            yield bytes([number]) * 65536

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def events(_):
    async def pieces():
        for number in range(5):
            yield f"id: {number}\ndata: {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(pieces(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def drip(_):
    async def pieces():
        for number in range(5):
            yield f"{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(pieces(), media_type="text/plain", headers={"cache-control": "no-store"})


class Upper:
    """Answers each piece of a request as it comes. Not a `StreamingResponse`, which would read the request itself."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b"").upper(), "more_body": more})


async def page(_):
    return HTMLResponse((Path(__file__).parent / "page.html").read_text())


async def report(request):
    await results.put(await request.json())
    return PlainTextResponse("thanks")


async def result(_):
    try:
        return JSONResponse(await asyncio.wait_for(results.get(), 40))
    except TimeoutError:
        return JSONResponse({"nothing": "the page has not told anything in 40 seconds"})


async def socket(socket):
    asked = socket.scope["subprotocols"]
    await socket.accept(subprotocol=asked[0] if asked else None)
    try:
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            if text is None:
                await socket.send_bytes(message["bytes"])
            elif text.startswith("close "):
                return await socket.close(int(text.split()[1]), "as you wish")
            else:
                await socket.send_text(text)
    except WebSocketDisconnect:
        pass


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
app = Starlette(
    routes=[
        Route("/echo", echo, methods=METHODS),
        Route("/upper", Upper(), methods=["POST"]),
        Route("/report", report, methods=["POST"]),
        WebSocketRoute("/ws", socket),
        *[Route(f"/{each.__name__}", each) for each in (download, events, drip, page, result)],
    ]
)
