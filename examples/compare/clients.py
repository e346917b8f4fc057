"""The callers: curl, a client that behaves like a browser, and a WebSocket. They note what came back as it came."""

import itertools
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

HOST = "shop.example"
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) like a browser",
    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "sec-ch-ua-MoBile": "?0",
    "Upgrade-Insecure-Requests": "1",
    "DNT": "1",
}


@dataclass
class Answer:
    """One final response, and the informational ones before it."""

    status: int
    reason: str
    version: str
    headers: list
    body: bytes | None
    interim: list = field(default_factory=list)
    # The caller's port; None where the client does not say.
    port: int | None = None
    # Seconds until the first and the last byte of the body.
    first: float | None = None
    total: float | None = None

    def all(self, name):
        return [value for given, value in self.headers if given.lower() == name]


class Curl:
    """curl with the options of a case, `{}` in them standing for scheme and host."""

    def __init__(self, work: Path):
        self._work, self._number = work, itertools.count()

    def __call__(self, port, case, arguments):
        number = next(self._number)
        heads, body = self._work / f"head-{number}", self._work / f"body-{number}"
        command = ["curl", "--silent", "--show-error", "--max-time", "60", "--dump-header", heads, "--output", body]
        command += ["--connect-to", f"::127.0.0.1:{port}", "--header", f"X-Case: {case}"]
        command += ["--write-out", "%{local_port} %{time_starttransfer} %{time_total} %{num_connects}"]
        command += [argument.replace("{}", f"http://{HOST}") for argument in arguments]
        done = subprocess.run(command, capture_output=True, timeout=90, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"curl ended with {done.returncode}: {done.stderr.decode().strip()}")
        local, first, total, connects = done.stdout.split()
        answers = parse_heads(heads.read_bytes())
        last = answers[-1]
        # With --head curl writes the head in place of a body.
        last.body = body.read_bytes() if body.exists() and "--head" not in arguments else b""
        last.first, last.total = float(first), float(total)
        if int(connects) == 1:
            for answer in answers:
                answer.port = int(local)
        return answers


def parse_heads(text):
    answers, interim = [], []
    for head in text.split(b"\r\n\r\n")[:-1]:
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, status, *reason = status_line.split(" ", 2)
        headers = [tuple(part.strip(" \t") for part in line.split(":", 1)) for line in lines]
        answer = Answer(int(status), "".join(reason), version, headers, None)
        if answer.status < 200 and answer.status != 101:
            interim.append((answer.status, headers))
            continue
        answer.interim, interim = interim, []
        answers.append(answer)
    return answers


class Browser(httpx.BaseTransport):
    """A transport that connects to a port of this host whatever the URL says, and keeps what comes back."""

    def __init__(self, port, http2=False):
        self._inner = httpx.HTTPTransport(http1=not http2, http2=http2)
        self._port, self.case, self.answers = port, "", []

    def session(self, **options):
        return httpx.Client(
            transport=self, base_url=f"http://{HOST}", headers=BROWSER, timeout=60, follow_redirects=True, **options
        )

    def take(self):
        taken, self.answers = self.answers, []
        return taken

    def handle_request(self, request):
        request.headers["X-Case"] = self.case
        there = httpx.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1", port=self._port),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        began = time.monotonic()
        response = self._inner.handle_request(there)
        pieces, first = [], None
        for piece in response.stream:
            first = first or time.monotonic() - began
            pieces.append(piece)
        body = b"".join(pieces)
        extensions = response.extensions
        self.answers.append(
            Answer(
                response.status_code,
                extensions.get("reason_phrase", b"").decode("latin-1"),
                extensions["http_version"].decode(),
                [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw],
                body,
                port=extensions["network_stream"].get_extra_info("client_addr")[1],
                first=first,
                total=time.monotonic() - began,
            )
        )
        response.stream.close()
        return httpx.Response(
            response.status_code, headers=response.headers, stream=httpx.ByteStream(body), request=request
        )

    def close(self):
        self._inner.close()


def websocket(port, case, path, run, options):
    """Opens a WebSocket and lets `run` use it. The body of the answer is what was heard, and how it ended."""
    tcp = socket.create_connection(("127.0.0.1", port))
    local = tcp.getsockname()[1]
    began = time.monotonic()
    options = {"compression": None, **options}
    try:
        with connect(
            f"ws://{HOST}{path}",
            sock=tcp,
            proxy=None,
            max_size=None,
            additional_headers={"X-Case": case},
            user_agent_header=BROWSER["User-Agent"],
            **options,
        ) as open_socket:
            try:
                heard = repr((open_socket.subprotocol, run(open_socket)))
            except ConnectionClosed as closed:
                heard = f"closed: {closed}"
        response = open_socket.response
        heard = f"{heard}; {open_socket.close_code} {open_socket.close_reason}".encode()
    except InvalidStatus as refused:
        response, heard = refused.response, bytes(refused.response.body)
    headers = list(response.headers.raw_items())
    total = time.monotonic() - began
    return [
        Answer(response.status_code, response.reason_phrase, "HTTP/1.1", headers, heard, port=local, total=total)
    ]
