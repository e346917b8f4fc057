"""The same calls to the same gRPC server, directly and through tracecar, and the spans that they leave.

Whatever a client can see has to be the same: messages, metadata, status and details, and how soon the service knows of a
caller that left. One span has to stand for each call, with the status that its client saw.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
from common import TRACECAR_READY, Collector, Programs, free_ports, print_table

HERE = Path(__file__).parent
LISTENING = r"listening on ([\d.]+):(\d+)"
LARGE = bytes(range(256)) * (20 * 4096)
ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Every call has to end by then, whatever it is about.
SECONDS = 30


# What a client may see at its deadline. A service whose connection is of age, and has no other call, closes it at the same
# moment, and clients that notice that first say so.
OVER = ("DEADLINE_EXCEEDED", "UNAVAILABLE")


class Caller:
    """Makes calls of all four kinds, and counts how each ended."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=ANY_SIZE)
        self.ended, self._lock = Counter(), threading.Lock()

    def count(self, method, code):
        with self._lock:
            self.ended[f"shop.Test/{method}", code.name] += 1

    def unary(self, method, message, kind="unary_unary", timeout=SECONDS, **more):
        """What came of a call with one answer: message, metadata in front and behind; or status and details."""
        call = getattr(self.channel, kind)(f"/shop.Test/{method}")
        try:
            answer, call = call.with_call(message, timeout=timeout, **more)
            self.count(method, grpc.StatusCode.OK)
            return answer, own(call.initial_metadata()), own(call.trailing_metadata())
        except grpc.RpcError as error:
            self.count(method, error.code())
            return error.code().name, error.details(), own(error.trailing_metadata())

    def stream(self, method, message, kind="unary_stream", **more):
        """The messages of a stream, and how it ended."""
        call = getattr(self.channel, kind)(f"/shop.Test/{method}")(message, timeout=SECONDS, **more)
        messages = []
        try:
            messages.extend(call)
        except grpc.RpcError:
            pass
        self.count(method, call.code())
        return messages, call.code().name, call.details()


def own(metadata):
    """What the service sent: what tracecar adds is documented, and what the library adds is its own business."""
    return sorted((key, each) for key, each in metadata or () if key.startswith("x-") and key != "x-correlation-id")


def echo(caller):
    metadata = (("x-text", "a, b;c"), ("x-twice", "1"), ("x-twice", "2"), ("x-bytes-bin", bytes(range(256))))
    return caller.unary("unary", b"hello", metadata=metadata)


def nothing(caller):
    return caller.unary("unary", b"")


def large(caller):
    answer, *rest = caller.unary("unary", LARGE)
    return answer == LARGE, rest


def compressed(caller):
    answer, *rest = caller.unary("unary", LARGE[: 1 << 20], compression=grpc.Compression.Gzip)
    return answer == LARGE[: 1 << 20], rest


def failures(caller):
    return [caller.unary("fails", f"{number} 100% späte € \n\t details".encode()) for number in range(1, 17)]


def exception(caller):
    return caller.unary("panics", b"")


def unknown_method(caller):
    return caller.unary("nobody_wrote_this", b"")


def server_stream(caller):
    return caller.stream("counts", b"1000")


def no_messages(caller):
    return caller.stream("counts", b"0")


def stream_that_fails(caller):
    return caller.stream("counts_and_fails", b"3")


def client_stream(caller):
    return caller.unary("adds", iter([b"x" * 1000] * 1000), kind="stream_unary")


def both_ways(caller):
    """Each message is sent when the answer to the last one has come, so nobody may keep anything back."""
    answered, answers = threading.Semaphore(1), []

    def messages():
        for number in range(100):
            answered.acquire(timeout=SECONDS)
            yield f"message {number}".encode()

    call = caller.channel.stream_stream("/shop.Test/converses")(messages(), timeout=SECONDS)
    for answer in call:
        answers.append(answer)
        answered.release()
    caller.count("converses", call.code())
    return answers, call.code().name


def told_deadline(caller):
    """The service is told the caller's deadline, but for the time that the way takes."""
    answer, *_ = caller.unary("deadline", b"", timeout=20)
    # The library rounds up what it sends.
    return 19 < float(answer) < 20.1


def deadline_over(caller):
    word = f"deadline {id(caller)}".encode()
    status, *_ = caller.unary("waits", word, timeout=0.5)
    known, *_ = caller.unary("was_given_up", word)
    return status in OVER, 0.3 < float(known) < 2


def cancelled(caller):
    word = f"cancelled {id(caller)}".encode()
    call = caller.channel.unary_stream("/shop.Test/ticks")(word, timeout=SECONDS)
    first = next(call)
    call.cancel()
    caller.count("ticks", call.code())
    known, *_ = caller.unary("was_given_up", word)
    return first, call.code().name, float(known) < 1


def many_at_once(caller):
    """More than one connection may hold, while connections come and go."""
    results = Counter()

    def some():
        for number in range(100):
            answer = caller.unary("unary", str(number).encode())[0]
            results[answer == str(number).encode() or answer] += 1

    threads = [threading.Thread(target=some) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


CASES = [
    echo,
    nothing,
    large,
    compressed,
    failures,
    exception,
    unknown_method,
    server_stream,
    no_messages,
    stream_that_fails,
    client_stream,
    both_ways,
    told_deadline,
    deadline_over,
    cancelled,
    many_at_once,
]


def service_down(programs, options):
    """Nobody is there to ask: the client is told so, by us, as a library would tell it."""
    [port] = free_ports(1)
    listen = programs.start(
        "tracecar-before-nobody",
        TRACECAR_READY,
        *[options.tracecar, "run", "--to", f"h2c://127.0.0.1:{port}", "--listen", "127.0.0.1:0", "--admin", "off"],
    )
    status, details, _ = Caller(f"{listen[0]}:{listen[1]}").unary("unary", b"")
    expected = f"tracecar: no answer from the service at 127.0.0.1:{port}: connection refused"
    return [] if (status, details) == ("UNAVAILABLE", expected) else [f"a service that is down: {status} {details}"]


def service_dies(programs, options):
    """A service that is killed in the middle of a stream is unavailable, directly as through tracecar."""
    found = []
    for way in ("directly", "through"):
        address = programs.start(f"server-{way}", LISTENING, sys.executable, HERE / "server.py", 1 << 30)
        if way == "through":
            to = f"h2c://{address[0]}:{address[1]}"
            command = [options.tracecar, "run", "--to", to, "--listen", "127.0.0.1:0", "--admin", "off"]
            address = programs.start("tracecar-before-a-service-that-dies", TRACECAR_READY, *command)
        ticks = Caller(f"{address[0]}:{address[1]}").channel.unary_stream("/shop.Test/ticks")(b"", timeout=SECONDS)
        next(ticks)
        programs.kill(f"server-{way}")
        try:
            for _ in ticks:
                pass
        except grpc.RpcError:
            pass
        found.append(ticks.code().name)
    return [] if found == ["UNAVAILABLE"] * 2 else [f"a service that dies: {found}"]


def judge_spans(collector, ended):
    """A span for each call, by the status that its client saw. A caller that leaves is told no status, unless the service,
    which watches the same deadline, was first."""

    def seen(method, status):
        gave_up = method in ("shop.Test/ticks", "shop.Test/waits") and status in ("CANCELLED", *OVER)
        return "_OTHER" if status == "UNIMPLEMENTED" else method, None if gave_up else status

    expected, found = Counter(), Counter()
    for key, count in ended.items():
        expected[seen(*key)] += count
    for span in collector.spans:
        found[seen(span.attributes.get("rpc.method"), span.attributes.get("rpc.response.status_code"))] += 1
    wrong = [key for key in expected | found if expected[key] != found[key]]
    return [f"spans of {key}: {found[key]}, not {expected[key]}" for key in wrong] + collector.problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracecar", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    collector, problems, rows = Collector(), [], []
    config = options.work / "tracecar.yaml"
    with Programs(options.work) as programs:
        service = programs.start("server", LISTENING, sys.executable, HERE / "server.py", 1000)
        config.write_text(
            "service: { name: shop }\n"
            f"inbound: [{{ listen: '127.0.0.1:0', to: 'h2c://{service[0]}:{service[1]}' }}]\n"
            "admin: { enabled: false }\n"
            "grpc: { methods: ['shop.Test/*'] }\n"
            f"export: {{ otlp: {{ endpoint: '{collector.url}' }} }}\n"
        )
        listen = programs.start("tracecar", TRACECAR_READY, options.tracecar, "run", "--config", config)
        directly = Caller(f"{service[0]}:{service[1]}")
        through = Caller(f"{listen[0]}:{listen[1]}")
        for case in CASES:
            if options.only not in case.__name__:
                continue
            results, times = [], []
            for caller in (directly, through):
                begun = time.monotonic()
                results.append(case(caller))
                times.append(f"{time.monotonic() - begun:.2f} s")
            same = results[0] == results[1]
            rows.append([case.__name__.replace("_", " "), *times, "same" if same else "DIFFERS"])
            if not same:
                problems.append(f"{case.__name__}: directly {results[0]!r:.500}, through tracecar {results[1]!r:.500}")
        directly.channel.close()
        through.channel.close()
        problems += service_down(programs, options)
        problems += service_dies(programs, options)
        problems += programs.stop("tracecar")
    problems += judge_spans(collector, through.ended)
    print_table(["case", "directly", "through", ""], rows)
    for problem in problems:
        print(f"FAILED {problem}")
    print(f"{len(rows)} cases, {len(collector.spans)} spans, {len(problems)} problems")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
