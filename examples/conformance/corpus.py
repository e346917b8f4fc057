"""The cases of tests/corpus/requests, whose README says what stands in them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "tests" / "corpus" / "requests"
BEHIND = b"GET /behind HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"


@dataclass
class Case:
    name: str
    rule: str
    # The first word of what is expected.
    expect: str
    requests: int
    ends: bool
    # Why a peer may refuse what we pass; empty where there is no such reason.
    peers: str
    data: bytes = field(repr=False)


def cases(only=""):
    read = [parse(path) for path in sorted(FOLDER.rglob("*.txt"))]
    return [case for case in read if only in case.name]


def parse(path):
    about, data = path.read_text().split("\n---\n", 1)
    keys = {}
    for line in about.splitlines():
        key, _, value = line.partition(":")
        keys.setdefault(key, value.strip())
    expect = keys["expect"].split()[0]
    passes = expect in ("accept", "either", "either-abort")
    data, ends = unescape(data), keys.get("then") == "end"
    return Case(
        name=str(path.relative_to(FOLDER).with_suffix("")),
        rule=keys["rule"],
        expect=expect,
        requests=int(keys.get("requests", passes)),
        ends=ends,
        peers=keys.get("peers", ""),
        data=data if ends else data + BEHIND,
    )


ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|\{(\d+)\*([^}]*)\}|(.))")
ONE = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


def unescape(text):
    """The bytes that a text stands for. Line ends of the file are none."""
    text, data, at = text.replace("\n", ""), bytearray(), 0
    for found in ESCAPE.finditer(text):
        data += text[at : found.start()].encode()
        byte, times, what, one = found.groups()
        if byte:
            data.append(int(byte, 16))
        elif times:
            data += unescape(what) * int(times)
        else:
            data += ONE[one]
        at = found.end()
    return bytes(data + text[at:].encode())
