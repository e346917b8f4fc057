"""A gRPC service that anybody might have written, by Google's own library. Messages are bytes, so nothing is generated."""

import sys
import threading
import time
from concurrent import futures

import grpc

# What became of calls that their callers gave up: the word they sent, and after how many seconds the service knew.
given_up = {}


def unary(request, context):
    """Sends everything back: the message, and the caller's metadata in front and behind."""
    sent = [(key, each) for key, each in context.invocation_metadata() if key.startswith("x-")]
    context.send_initial_metadata(sent)
    context.set_trailing_metadata(sent)
    return request


def fails(request, context):
    """Fails with the status and the details of the request, before anything was sent."""
    number, _, details = request.decode().partition(" ")
    code = next(each for each in grpc.StatusCode if each.value[0] == int(number))
    context.set_trailing_metadata([("x-why-bin", b"\x00\xff\x01")])
    context.abort(code, details)


def panics(_request, _context):
    raise ValueError("nobody caught this")


def deadline(_request, context):
    """How many seconds the service is told that there are."""
    return repr(context.time_remaining()).encode()


def waits(request, context):
    watch(request, context)
    time.sleep(8)
    return b""


def was_given_up(request, _context):
    """After how many seconds the service knew that the caller of `request` had left; waits for that a while."""
    until = time.monotonic() + 5
    while request not in given_up and time.monotonic() < until:
        time.sleep(0.01)
    return repr(given_up.get(request)).encode()


def counts(request, _context):
    for number in range(int(request)):
        yield str(number).encode()


def counts_and_fails(request, context):
    yield from counts(request, context)
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "that was all")


def adds(requests, _context):
    return str(sum(len(each) for each in requests)).encode()


def converses(requests, _context):
    """Answers each message before it reads the next one."""
    for each in requests:
        yield each[::-1]


def ticks(request, context):
    watch(request, context)
    while context.is_active():
        yield b"tick"
        time.sleep(0.02)


def watch(request, context):
    begun = time.monotonic()
    context.add_callback(lambda: given_up.setdefault(request, time.monotonic() - begun))


KINDS = {
    grpc.unary_unary_rpc_method_handler: [unary, fails, panics, deadline, waits, was_given_up],
    grpc.unary_stream_rpc_method_handler: [counts, counts_and_fails, ticks],
    grpc.stream_unary_rpc_method_handler: [adds],
    grpc.stream_stream_rpc_method_handler: [converses],
}

if __name__ == "__main__":
    handlers = {method.__name__: kind(method) for kind, methods in KINDS.items() for method in methods}
    server = grpc.server(
        futures.ThreadPoolExecutor(64),
        options=[
            ("grpc.max_receive_message_length", -1),
            # Connections end every now and then, as they do behind load balancers.
            ("grpc.max_connection_age_ms", int(sys.argv[1])),
        ],
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    threading.Event().wait()
