"""Talks to the shop over a WebSocket, at the address given."""

import sys

from websockets.sync.client import connect

with connect(sys.argv[1]) as socket:
    print("server-timing:", socket.response.headers.get("server-timing"))
    socket.send("hello")
    print(socket.recv())
