"""A FastAPI app with something of everything that an intermediary can get wrong. It knows nothing of tracing."""

import asyncio
import hashlib
import os

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse

app = FastAPI()
app.add_middleware(GZipMiddleware, minimum_size=500)
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


@app.api_route("/echo", methods=METHODS)
@app.api_route("/echo/{rest:path}", methods=METHODS)
async def echo(request: Request):
    body = await request.body()
    return {
        "method": request.method,
        "path": request.scope["raw_path"].decode("latin-1"),
        "query": request.scope["query_string"].decode("latin-1"),
        "version": request.scope["http_version"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }


@app.get("/items/{item}")
async def item(item: int):
    return {"item": item}


@app.post("/upload")
async def upload(request: Request):
    length, digest, pieces = 0, hashlib.sha256(), 0
    async for piece in request.stream():
        length, pieces = length + len(piece), pieces + bool(piece)
        digest.update(piece)
    return {"length": length, "sha256": digest.hexdigest()}


@app.get("/download")
async def download(mebibytes: int = 10):
    async def pieces():
        for number in range(mebibytes * 16):
            yield hashlib.sha256(str(number).encode()).digest() * 2048

    return StreamingResponse(pieces(), media_type="application/octet-stream")


@app.api_route("/file", methods=["GET", "HEAD"])
async def file():
    return FileResponse(os.environ["COMPARE_FILE"], media_type="application/octet-stream", filename="ten.bin")


@app.get("/page")
async def page():
    return PlainTextResponse("the quick brown fox\n" * 200)


@app.get("/login")
async def login():
    response = RedirectResponse("/me", status_code=303)
    response.set_cookie("session", "abc123", httponly=True, path="/")
    response.set_cookie("theme", "dark", max_age=3600)
    response.set_cookie("tour", "done; \"quoted\"", samesite="strict")
    return response


@app.get("/me")
async def me(request: Request):
    return request.cookies


@app.get("/cached")
async def cached(request: Request):
    headers = {"ETag": '"v1"', "Cache-Control": "max-age=60", "Vary": "Accept"}
    if request.headers.get("if-none-match") == '"v1"':
        return Response(status_code=304, headers=headers)
    return JSONResponse({"version": 1}, headers=headers)


@app.post("/reject")
async def reject():
    # Answers without having read the body.
    return PlainTextResponse("not for you\n", status_code=401, headers={"WWW-Authenticate": 'Basic realm="shop"'})


@app.get("/odd")
async def odd():
    response = PlainTextResponse("odd\n")
    for name, value in [
        ("x-many", "1"), ("x-other", "between"), ("x-many", "2, 3"), ("x-many", "1"), ("x-empty", ""),
        ("x-latin", "caf\xe9"), ("x-long", "a" * 6000), ("x-spaces", "a  b\tc"), ("vary", "Accept"), ("vary", "Cookie"),
        ("server-timing", "db;dur=12.5"), ("via", "1.1 cache"), ("age", "7"), ("link", "</a>; rel=preload"),
    ]:
        response.raw_headers.append((name.encode(), value.encode("latin-1")))
    return response


@app.get("/code/{code}")
async def code(code: int):
    if code in (204, 205, 304):
        return Response(status_code=code)
    return PlainTextResponse(f"{code}\n", status_code=code)


@app.get("/fail")
async def fail():
    raise RuntimeError("on purpose")


@app.get("/slow")
async def slow():
    async def pieces():
        for number in range(5):
            yield f"piece {number}\n"
            await asyncio.sleep(0.15)

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/events")
async def events():
    async def pieces():
        for number in range(5):
            yield f"id: {number}\nevent: tick\ndata: {number}\n\n"
            await asyncio.sleep(0.15)

    return StreamingResponse(pieces(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@app.websocket("/ws")
async def socket(socket: WebSocket):
    asked = socket.scope["subprotocols"]
    await socket.accept(subprotocol=asked[-1] if asked else None, headers=[(b"x-room", b"7")])
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "please close":
                return await socket.close(4001, "as you wish")
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass


@app.websocket("/closed-room")
async def closed_room(socket: WebSocket):
    # Closing before accepting answers the handshake with 403.
    await socket.close()
