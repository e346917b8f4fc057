"""Sends the cases of tests/corpus/requests through tracecar, nginx and HAProxy, and compares what reaches the service.

Nothing that one of the others refuses may reach the service through tracecar, but for what the case itself gives a
reason for; nothing that tracecar sends may be readable in two ways; and the service has to get as many requests as were
sent.
"""

import argparse
import json
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import peers
from common import Programs, print_table
from corpus import cases
from recorder import Recorders

# How long nobody may say anything. Whoever waits for more by then will wait on.
PATIENCE = 1.5
AT_A_TIME = 16


@dataclass
class Verdict:
    """What became of a case at one proxy."""

    # passed, answered (by the proxy itself), refused, closed, waits, cut or smuggled.
    word: str
    statuses: list
    # How many requests came to the service, without the one sent behind.
    requests: int
    faults: list

    def __str__(self):
        status = "/".join(str(each) for each in self.statuses if each >= 400)
        return f"{self.word} {status}".strip() + (" FAULTY" if self.faults else "")


def ask(peer, number, case):
    """Sends a case; returns the statuses that came back, and whether the connection ended."""
    answer, ended = bytearray(), True
    with peer.connect(number) as there:
        there.settimeout(PATIENCE)
        try:
            there.sendall(case.data)
            if case.ends:
                there.shutdown(socket.SHUT_WR)
        except OSError:
            # Whoever refuses may close before all has been sent.
            pass
        try:
            while piece := there.recv(65536):
                answer += piece
        except TimeoutError:
            ended = False
        except OSError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)], ended


def judge(case, statuses, ended, seen):
    """What a proxy did, in one word."""
    complete = [each for each in seen if each.complete and each.target != "/behind"]
    faults = [each.fault for each in seen if each.fault]
    word = "passed"
    if any(each.target == "/smuggled" for each in seen):
        word = "smuggled"
    elif len(complete) > case.requests and case.expect in ("reject", "abort"):
        word = "passed"
    elif any(status >= 400 for status in statuses):
        word = "refused"
    elif case.expect == "answered" and not complete and statuses:
        word = "answered"
    elif case.expect not in ("reject", "abort") and len(complete) == case.requests:
        word = "passed"
    elif not ended:
        word = "waits"
    else:
        word = "cut" if seen else "closed"
    return Verdict(word, statuses, len(complete), faults)


def problems(case, of):
    """What is wrong with tracecar's way, seen beside the others'."""
    mine = of["tracecar"]
    others = {name: verdict for name, verdict in of.items() if name != "tracecar"}
    # One that sent on what nobody may send got its refusal from the service.
    refusing = [name for name, verdict in others.items() if verdict.word == "refused" and not verdict.faults]
    told = [f"the service got {fault}" for fault in mine.faults]
    if mine.word == "smuggled":
        told.append("SMUGGLED")
    if mine.word == "passed":
        if case.expect in ("reject", "abort", "answered"):
            told.append("it should not have reached the service")
        if refusing and not case.peers:
            told.append(f"{' and '.join(refusing)} refused it")
        if mine.requests != case.requests:
            told.append(f"the service got {mine.requests} requests, and {case.requests} were sent")
    elif case.expect == "accept":
        told.append("nothing is wrong with it, and it did not reach the service")
    elif mine.word == "waits":
        told.append("the connection does not end")
    return told


def run_all(work, binary, chosen):
    """Every case through every proxy: by the names of the proxies, verdicts in the order of the cases."""
    recorders = {name: Recorders(len(chosen)) for name in ("tracecar", "nginx", "HAProxy")}
    results, versions, stopping = {}, {}, []
    with Programs(work) as programs:
        there = [peers.tracecar(programs, binary, work, recorders["tracecar"].ports)]
        try:
            for name, begin in (("nginx", peers.nginx), ("HAProxy", peers.haproxy)):
                begun = begin(work / name, recorders[name].ports)
                if begun is None:
                    print(f"SKIPPED {name}: it cannot be had here, so tracecar is not compared with it", file=sys.stderr)
                    continue
                there.append(begun[0])
                stopping.append(begun[1])
            for peer in there:
                with ThreadPoolExecutor(AT_A_TIME) as pool:
                    answers = list(pool.map(lambda pair, peer=peer: ask(peer, *pair), enumerate(chosen)))
                results[peer.name], versions[peer.name] = answers, peer.version
        finally:
            for daemon in stopping:
                daemon.stop()
    # All are stopped, so that nothing is on its way any more.
    return versions, {
        name: [
            judge(case, *answer, list(recorders[name].seen[number]))
            for number, (case, answer) in enumerate(zip(chosen, answers, strict=True))
        ]
        for name, answers in results.items()
    }


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tracecar", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--quick", action="store_true", help="accepted for the sake of examples/check: it takes seconds anyway")
    options.add_argument("--all", action="store_true", help="show every case")
    options.add_argument("--only", default="", help="only cases with this in their names")
    options.add_argument("--json", type=Path, help="write the results there, too")
    options = options.parse_args()

    chosen = cases(options.only)
    versions, verdicts = run_all(options.work, options.tracecar, chosen)
    names = list(verdicts)
    rows, failed, excepted, told = [], [], [], []
    for number, case in enumerate(chosen):
        of = {name: verdicts[name][number] for name in names}
        wrong = problems(case, of)
        refused = any(of[name].word == "refused" for name in names[1:])
        exception = of["tracecar"].word == "passed" and refused and case.peers
        if wrong:
            failed.append((case, wrong))
        elif exception:
            excepted.append(case)
        if options.all or wrong or exception:
            rows.append([case.name, case.rule, case.expect, *(str(of[name]) for name in names), "; ".join(wrong) or "ok"])
        told.append({
            "case": case.name, "rule": case.rule, "expected": case.expect, "problems": wrong, "exception": case.peers,
            "verdicts": {
                name: {"verdict": each.word, "statuses": each.statuses, "requests": each.requests, "faults": each.faults}
                for name, each in of.items()
            },
        })
    print_table(["case", "rule", "expected", *(f"{name} {versions[name]}" for name in names), "result"], rows)
    print()
    by_proxy(names, chosen, verdicts)
    if excepted:
        print("\nwhat tracecar passes though another refuses it, and why:")
        for case in excepted:
            print(f"  {case.name}: {case.peers}")
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, "cases": told}, indent=1) + "\n")
    print(f"\n{len(chosen)} cases, {len(failed)} failed, {len(excepted)} exceptions")
    return 1 if failed or not chosen else 0


def by_proxy(names, chosen, verdicts):
    """How many of the bad cases, and of the good ones, each proxy lets through."""
    rows = []
    for what, of in (("well formed", ("accept",)), ("malformed", ("reject", "abort")), ("either is right", ("either", "either-abort"))):
        numbers = [number for number, case in enumerate(chosen) if case.expect in of]
        row = [what, len(numbers)]
        for name in names:
            words = [verdicts[name][number] for number in numbers]
            faulty = sum(bool(each.faults) for each in words)
            smuggled = sum(each.word == "smuggled" for each in words)
            row.append(f"{sum(each.word in ('passed', 'smuggled') for each in words)} passed, {smuggled} smuggled, {faulty} faulty")
        rows.append(row)
    print_table(["", "cases", *names], rows)


if __name__ == "__main__":
    sys.exit(main())
