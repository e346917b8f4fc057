"""The service graph that Tempo would make of spans, by the rules that its users meet:

- an edge is a CLIENT span and the SERVER span right below it, even if other spans came in between elsewhere;
- its ends are called by `service.name`, and it has failed if either span has;
- a SERVER span that is the root of a trace was called by `user`;
- a CLIENT span with no SERVER span below it is an edge to the node that a peer attribute names, and else nothing.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

PEER_ATTRIBUTES = ("peer.service", "db.name", "db.system", "db.system.name")
VIRTUAL = "virtual_node"


@dataclass
class Edge:
    requests: int = 0
    failed: int = 0


def graph(spans):
    """The edges by (client, server, connection type), and how many spans found no other end."""
    clients = {span.key: span for span in spans if span.kind == "CLIENT"}
    edges, unpaired, met = defaultdict(Edge), 0, set()

    def add(client, server, connection, failed):
        edge = edges[client, server, connection]
        edge.requests += 1
        edge.failed += failed

    for span in spans:
        if span.kind != "SERVER":
            continue
        client = clients.get(span.parent)
        if client:
            met.add(client.key)
            add(client.service, span.service, "", client.failed or span.failed)
        elif span.parent is None:
            add("user", span.service, VIRTUAL, span.failed)
        else:
            unpaired += 1
    for client in clients.values():
        if client.key in met:
            continue
        peer = next((client.attributes[name] for name in PEER_ATTRIBUTES if name in client.attributes), None)
        if peer:
            add(client.service, peer, VIRTUAL, client.failed)
        else:
            unpaired += 1
    return dict(edges), unpaired


def problems(spans, expected):
    """What is wrong with the graph of `spans`, if it should have the edges of {(client, server): requests}."""
    edges, unpaired = graph(spans)
    # Counters say 0 of what they have not met.
    found, expected = Counter(), Counter(expected)
    for (client, server, _), edge in edges.items():
        found[client, server] += edge.requests
    told = [
        f"graph: {client} -> {server} has {found[client, server]} requests, not {expected[client, server]}"
        for client, server in sorted(found.keys() | expected.keys())
        if found[client, server] != expected[client, server]
    ]
    told += [
        f"graph: {client} -> {server} has failed {edge.failed} times"
        for (client, server, _), edge in edges.items()
        if edge.failed
    ]
    told += [f"graph: {client} calls itself" for client, server, _ in edges if client == server]
    return told + ([f"graph: {unpaired} spans have no other end"] if unpaired else [])
