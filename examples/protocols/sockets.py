"""WebSockets: the websockets library over HTTP/1.1, and h2 with wsproto over HTTP/2 (RFC 8441)."""

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import h2.connection
import h2.events
import h2.settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

MESSAGES = ["hello", "ä€😀", "", b"\x00\xff" * 500, "t" * 200_000, b"b" * 3_000_000, ["in ", "three ", "pieces"]]


def open_socket(way, **options):
    return connect(f"{way.websocket}/ws", proxy=None, max_size=None, ssl=way.context(), **options)


def whole(message):
    return "".join(message) if isinstance(message, list) else message


def talks(way, compression):
    """Every message comes back as it was."""
    with open_socket(way, compression=compression) as there:
        negotiated = bool(there.protocol.extensions)
        problems = [] if negotiated == bool(compression) else [f"compression is {negotiated}"]
        for message in MESSAGES:
            there.send(message)
            if (came := there.recv(timeout=20)) != whole(message):
                problems.append(f"{len(whole(message))} of {type(message).__name__} became {came[:20]!r}")
        return problems


def pings(way):
    """Pings of any content are answered, also between the pieces of a message."""
    with open_socket(way, compression=None) as there:
        alive = [there.ping(payload).wait(10) for payload in (b"", b"1", b"x" * 125)]
        there.send("still here")
        return [] if all(alive) and there.recv(timeout=10) == "still here" else [f"answered: {alive}"]


def closes(way):
    """Codes and reasons of either side get to the other."""
    problems = []
    for code in (1000, 1001, 1011, 3000, 4001, 4999):
        with open_socket(way) as there:
            there.send(f"close {code}")
            try:
                problems.append(f"{code}: {there.recv(timeout=10)!r} came")
            except ConnectionClosed as closed:
                if not closed.rcvd or (closed.rcvd.code, closed.rcvd.reason) != (code, "as you wish"):
                    problems.append(f"{code} became {closed.rcvd}")
    with open_socket(way) as there:
        there.close(4002, "I go")
        if there.close_code != 4002:
            problems.append(f"our own 4002 became {there.close_code}")
    return problems


def subprotocols(way):
    with open_socket(way, subprotocols=["chat", "superchat"]) as there:
        return [] if there.subprotocol == "chat" else [f"{there.subprotocol} was agreed on"]


def many(way):
    """Fifty at a time, each with its own messages."""

    def one(number):
        with open_socket(way) as there:
            for turn in range(20):
                there.send(f"{number} {turn}")
                if (came := there.recv(timeout=20)) != f"{number} {turn}":
                    return [f"{number} {turn} became {came!r}"]
        return []

    with ThreadPoolExecutor(50) as pool:
        return [problem for told in pool.map(one, range(50)) for problem in told]


class NotOffered(Exception):
    """The other side does not speak WebSocket over HTTP/2; a client that sees that takes HTTP/1.1."""


class Http2Socket:
    """A WebSocket in a stream of HTTP/2."""

    def __init__(self, way):
        there = socket.create_connection(("127.0.0.1", way.port), 10)
        if context := way.context():
            context.set_alpn_protocols(["h2"])
            there = context.wrap_socket(there, server_hostname="localhost")
        self._there, self._http, self._data, self._status = there, h2.connection.H2Connection(), bytearray(), None
        self._frames = FrameProtocol(client=True, extensions=[])
        self._http.initiate_connection()
        self._flush()
        self._settings = False
        while not self._settings:
            self._take()
        if not self._http.remote_settings.enable_connect_protocol:
            there.close()
            raise NotOffered
        self._stream = self._http.get_next_available_stream_id()
        scheme = "https" if way.context() else "http"
        self._http.send_headers(self._stream, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", scheme), (":path", "/ws"),
            (":authority", "localhost"), ("sec-websocket-version", "13"),
        ])
        self._flush()
        while self._status is None:
            self._take()
        if self._status != "200":
            raise ConnectionError(f"answered with {self._status}")

    def _flush(self):
        self._there.sendall(self._http.data_to_send())

    def _take(self):
        data = self._there.recv(65536)
        if not data:
            raise ConnectionError("the connection ended")
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self._settings = True
            elif isinstance(event, h2.events.ResponseReceived):
                self._status = dict(event.headers).get(b":status", b"").decode() or dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self._data += event.data
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                raise ConnectionError(f"the stream was reset with {event.error_code}")
        self._flush()

    def send(self, message):
        data = self._frames.send_data(message, fin=True)
        while data:
            room = min(self._http.local_flow_control_window(self._stream), self._http.max_outbound_frame_size)
            if not room:
                self._take()
                continue
            self._http.send_data(self._stream, data[:room])
            data = data[room:]
            self._flush()

    def receive(self):
        """The next message, or code and reason of the other side."""
        message = None
        while True:
            while not self._data:
                self._take()
            self._frames.receive_bytes(bytes(self._data))
            self._data.clear()
            for frame in self._frames.received_frames():
                if frame.opcode == Opcode.CLOSE:
                    return frame.payload
                message = frame.payload if message is None else message + frame.payload
                if frame.message_finished:
                    return message

    def close(self):
        self._http.send_data(self._stream, self._frames.close(CloseReason.NORMAL_CLOSURE), end_stream=True)
        self._flush()
        self._there.close()


def over_http2(way):
    """The same over one stream of HTTP/2."""
    problems, there = [], Http2Socket(way)
    for message in (each for each in MESSAGES if each and not isinstance(each, list)):
        there.send(message)
        if (came := there.receive()) != message:
            problems.append(f"{len(message)} of {type(message).__name__} became {came[:20]!r}")
    there.send("close 4001")
    if (told := there.receive()) != (4001, "as you wish"):
        problems.append(f"4001 became {told}")
    there.close()
    return problems


def trusting(certificate):
    """A TLS context that trusts one authority."""
    return ssl.create_default_context(cafile=certificate)
