"""What can go wrong in the three apps, and which of it those who see the wire only can tell apart."""

import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

# What an app says of an exception in production.
BARE = "Internal Server Error"


@dataclass(frozen=True)
class Cause:
    """What failures have in common that an observer of the wire can see: a group, an issue."""

    service: str
    place: str
    status: int
    # The type of the exception, where the answer shows one, else the status or how it ended.
    kind: str
    # The message without what changes.
    message: str

    def __str__(self):
        return f"{self.service} {self.place} {self.status} {self.kind} {self.message!r}"


@dataclass(frozen=True)
class Fault:
    """One way in which an app fails."""

    app: str
    method: str
    # The path's template, as the app has it.
    template: str
    path: Callable
    status: int
    message: str
    # The type of an exception that nobody catches: shown in development, not in production.
    thrown: str | None = None
    # What a title has to have some word of: a regular expression in place of the message's words.
    told: str | None = None
    # What production says in place of the message of an exception.
    bare: str = BARE

    def cause(self, mode):
        """What it is for an observer, in an app that runs in this mode."""
        shown = mode == "development" or not self.thrown
        kind = (self.thrown if shown else None) or str(self.status)
        message = self.message if shown else self.bare
        return Cause(f"{self.app}-{mode}", f"{self.method} {self.template}", self.status, kind, message)

    def title(self, mode):
        """The regular expression that a readable title matches: the type, or words of the message."""
        cause = self.cause(mode)
        if self.told:
            return self.told
        fixed = cause.message.split("{}")
        words = max((part.strip(" :.,'") for part in fixed), key=len)
        # Quotation marks may be of any kind, or be entities.
        words = re.escape(words).replace("'", ".+")
        # A status is no reason, and everything is an Error.
        return words if cause.kind.isdigit() or cause.kind == "Error" else f"{re.escape(cause.kind)}|{words}"


@dataclass(frozen=True)
class Request:
    """What is asked of an app; without a fault it succeeds, or fails in a way that is nobody's failure."""

    app: str
    mode: str
    method: str
    path: str
    status: int
    fault: Fault | None

    @property
    def service(self):
        return f"{self.app}-{self.mode}"

    @property
    def cause(self):
        return self.fault and self.fault.cause(self.mode)


class Ids:
    """Whatever changes from one request to the next."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def number(self, digit):
        """A number of varying length that ends with this digit."""
        return self.random.randrange(10 ** self.random.randrange(1, 7)) * 10 + digit

    def uuid(self, digits):
        text = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        return text[:-1] + self.random.choice(digits)

    def email(self, domain):
        name = self.random.choice(["anna", "ben.k", "c+shop", "d_ora", "emil"])
        return f"{name}{self.random.randrange(10_000)}@{domain}"

    def address(self, first):
        return ".".join([first, *(str(self.random.randrange(1, 255)) for _ in range(3))])

    def charge(self, digits):
        """As payment processors name things."""
        return f"ch_{self.random.getrandbits(92):023x}{self.random.choice(digits)}"


def numbered(prefix, digit, suffix=""):
    return lambda ids: f"{prefix}{ids.number(digit)}{suffix}"


SHOP = [
    Fault("shop", "GET", "/orders/{number}", numbered("/orders/", 1), 500, "'order-{}'", "KeyError"),
    Fault(
        "shop",
        "GET",
        "/orders/{number}",
        numbered("/orders/", 2),
        500,
        "order {} has a total of {} EUR",
        "ValueError",
    ),
    Fault(
        "shop", "GET", "/orders/{number}", numbered("/orders/", 3), 503, "warehouse at {}:{} does not answer"
    ),
    Fault("shop", "GET", "/orders/{number}", numbered("/orders/", 4), 500, "order {} has no lines"),
    # A 409 is a failure here, for the configuration says so.
    Fault("shop", "GET", "/orders/{number}", numbered("/orders/", 5), 409, "order {} is being changed by {}"),
    Fault("shop", "GET", "/orders/{number}", numbered("/orders/", 6), 500, "row {} is locked"),
    Fault("shop", "GET", "/items/{item}", numbered("/items/", 1), 500, "row {} is locked", "RuntimeError"),
    Fault("shop", "GET", "/items/{item}", numbered("/items/", 6), 500, "row {} is locked"),
    Fault(
        "shop",
        "GET",
        "/items/{item}",
        numbered("/items/", 7),
        500,
        "no rate for {} pieces at {} EUR",
        "NoRate",
    ),
    Fault(
        "shop",
        "GET",
        "/sessions/{session}",
        lambda ids: f"/sessions/{ids.uuid('0123')}",
        500,
        "session {} ended at {}",
        "SessionExpired",
    ),
    Fault(
        "shop",
        "GET",
        "/customers/{email}",
        lambda ids: f"/customers/{ids.email('example.org')}",
        502,
        "CRM at {} said no for {}",
        told="CRM at|said no for",
    ),
    Fault("shop", "GET", "/search", numbered("/search?q=", 7), 504, "search {} took longer than {} ms"),
    Fault(
        "shop",
        "POST",
        "/payments/{payment}",
        lambda ids: f"/payments/{ids.uuid('0123')}",
        500,
        "payment {} over {} EUR was refused",
        told="Payment refused|was refused",
    ),
]

# What Flask's page says in production, below its title.
FLASK_BARE = "The server encountered an internal error and was unable to complete your request."

BILLING = [
    Fault(
        "billing",
        "GET",
        "/invoices/{number}",
        numbered("/invoices/", 1),
        500,
        "'tax-{}'",
        "KeyError",
        told="KeyError|Internal Server Error|internal error",
        bare=FLASK_BARE,
    ),
    Fault(
        "billing",
        "GET",
        "/invoices/{number}",
        numbered("/invoices/", 2),
        500,
        "invoice {} is from {}",
        "ValueError",
        told="ValueError|Internal Server Error|internal error",
        bare=FLASK_BARE,
    ),
    Fault(
        "billing",
        "GET",
        "/invoices/{number}",
        numbered("/invoices/", 3),
        503,
        "The ledger at {} is closed until {}.",
        told="ledger at|is closed until|Service Unavailable",
    ),
    Fault(
        "billing",
        "GET",
        "/invoices/{number}",
        numbered("/invoices/", 4),
        504,
        "tax service {}:{} timed out after {} ms",
    ),
    Fault("billing", "GET", "/invoices/{number}", numbered("/invoices/", 6), 500, "row {} is locked"),
    Fault(
        "billing",
        "GET",
        "/accounts/{account}",
        lambda ids: f"/accounts/{ids.uuid('0123')}",
        500,
        "account {} of {} is frozen",
        "AccountFrozen",
        told="AccountFrozen|Internal Server Error|internal error",
        bare=FLASK_BARE,
    ),
    # One exception in the handler of another: the last is what the caller got.
    Fault(
        "billing",
        "GET",
        "/rates/{amount}",
        numbered("/rates/", 0),
        500,
        "no rate for {} EUR",
        "RateMissing",
        told="RateMissing|Internal Server Error|internal error",
        bare=FLASK_BARE,
    ),
    Fault(
        "billing",
        "POST",
        "/charges/{charge}",
        lambda ids: f"/charges/{ids.charge('0123')}",
        502,
        "the processor lost charge {}",
    ),
]

STOCK = [
    Fault(
        "stock",
        "GET",
        "/items/{id}",
        numbered("/items/", 1),
        500,
        "Cannot read properties of undefined (reading 'price')",
        "TypeError",
    ),
    Fault(
        "stock", "GET", "/items/{id}", numbered("/items/", 2), 500, "stock row {} is locked by {}", "Error"
    ),
    Fault(
        "stock",
        "GET",
        "/items/{id}",
        numbered("/items/", 3),
        503,
        "depot {} is closed",
        "ServiceUnavailableError",
        bare="Service Unavailable",
    ),
    Fault("stock", "GET", "/items/{id}", numbered("/items/", 4), 500, "item {} has {} pieces"),
    Fault("stock", "GET", "/items/{id}", numbered("/items/", 6), 500, "row {} is locked"),
    Fault("stock", "DELETE", "/items/{id}", numbered("/items/", 6), 500, "row {} is locked"),
    Fault("stock", "GET", "/items/{id}", numbered("/items/", 8), 502, "depot {} refused item {}"),
    Fault(
        "stock",
        "GET",
        "/users/{email}/basket",
        lambda ids: f"/users/{ids.email('example.org')}/basket",
        500,
        "basket of {} is worth {} EUR",
        "Overdrawn",
    ),
    Fault(
        "stock",
        "GET",
        "/hosts/{address}/ping",
        lambda ids: f"/hosts/{ids.address('10')}/ping",
        504,
        "no answer from {} in {} ms",
    ),
    # Status and message of these are tracecar's own: the app only hangs up.
    Fault(
        "stock",
        "GET",
        "/exports/{id}",
        numbered("/exports/", 1),
        200,
        "broke off",
        told="(?i)broken?|broke off|incomplete|body|ended early",
    ),
    Fault(
        "stock",
        "GET",
        "/exports/{id}",
        numbered("/exports/", 2),
        502,
        "hung up",
        told="(?i)reset|closed|hung up|502",
    ),
]

FAULTS = SHOP + BILLING + STOCK
MODES = ["production", "development"]

# What succeeds, and the 4xx that are the caller's business.
FINE = [
    ("shop", "GET", numbered("/orders/", 0), 200),
    ("shop", "GET", numbered("/orders/", 7), 404),
    ("shop", "GET", numbered("/items/", 5), 409),
    ("shop", "GET", lambda ids: f"/sessions/{ids.uuid('89ab')}", 200),
    ("shop", "GET", lambda ids: f"/customers/{ids.email('example.com')}", 200),
    ("shop", "GET", lambda ids: "/orders/none", 422),
    ("billing", "GET", numbered("/invoices/", 0), 200),
    ("billing", "GET", numbered("/invoices/", 7), 404),
    ("billing", "GET", lambda ids: f"/accounts/{ids.uuid('89ab')}", 200),
    ("stock", "GET", numbered("/items/", 0), 200),
    ("stock", "GET", numbered("/items/", 5), 409),
    ("stock", "GET", lambda ids: f"/hosts/{ids.address('172')}/ping", 200),
    ("stock", "GET", numbered("/exports/", 0), 200),
]


def requests(failures, successes, seed):
    """So many of each kind in random order; each fault happens at least once, if there is room for it."""
    ids = Ids(seed)
    kinds = [(fault, mode) for mode in MODES for fault in FAULTS]
    chosen = [*kinds, *ids.random.choices(kinds, k=failures)][:failures]
    made = [
        Request(fault.app, mode, fault.method, fault.path(ids), fault.status, fault) for fault, mode in chosen
    ]
    for _ in range(successes):
        app, method, path, status = ids.random.choice(FINE)
        made.append(Request(app, ids.random.choice(MODES), method, path(ids), status, None))
    ids.random.shuffle(made)
    return made
