"""A small shop, as somebody might write it. It knows nothing of tracing."""

import asyncio

from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI(title="shop")
ITEMS = {1: "kettle", 2: "teapot", 3: "cup"}


class Order(BaseModel):
    item: int
    pieces: int = 1


@app.get("/")
async def front():
    return {"items": len(ITEMS)}


@app.get("/items/{item}")
async def show(item: int):
    if item not in ITEMS:
        raise HTTPException(status_code=404, detail="no such item")
    return {"item": item, "name": ITEMS[item]}


@app.post("/orders", status_code=201)
async def order(order: Order):
    return {"ordered": ITEMS.get(order.item), "pieces": order.pieces}


@app.get("/broken")
async def broken():
    raise RuntimeError("the till is stuck")


@app.get("/export")
async def export():
    async def lines():
        for item, name in ITEMS.items():
            yield f"{item},{name}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/csv")


@app.get("/news")
async def news():
    async def events():
        for item, name in ITEMS.items():
            yield f"id: {item}\ndata: {name} is back in stock\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/chat")
async def chat(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text("you said " + await socket.receive_text())
    except WebSocketDisconnect:
        pass
