"""Leaks small objects amid bursts of others: who makes Python's arenas grow is rarely who fills them.

LAB_KIND says of which kind: slots, str, bytes, dict, tuple, closure; float, whose memory was given for what
the pace is reckoned with, since freed ones are kept for the next; or concat: bytes that no function makes
which a symbol names, amid encoders of the same size. LAB_SAME has the others be
of the same kind, so many for each that stays."""
import json
import os
import sys

import lab


class Session:
    __slots__ = ("a", "b", "c", "d")

    def __init__(self, n):
        self.a = None


def closure(n):
    return lambda: n


def amid_encoders(n):
    json.dumps({"session": n})
    return NAME + NUMBERS[n % 8]


NAME = b"a session's name, as long as an encoder of JSON, "
NUMBERS = [b"number %d" % n for n in range(8)]
KINDS = {
    "slots": (Session, lambda n: (Session(n),)),
    "str": (lambda n: "a session's name, %d" % n, lambda n: ("a session's name, %d" % n,)),
    "bytes": (lambda n: b"%d of a session" % n, lambda n: (b"%d of a session" % n,)),
    "dict": (lambda n: {"session": None, "name": None}, lambda n: ({"session": None, "name": None},)),
    "tuple": (lambda n: [(None, held), (held, None)], lambda n: ((1, 2), (1, 2), [1, 2])),
    "concat": (amid_encoders, lambda n: (amid_encoders(n),)),
    "float": (lambda n: n * 0.37, lambda n: (n * 0.37,)),
    "closure": (closure, lambda n: (closure(n), closure(n).__closure__[0])),
}
KIND = os.environ.get("LAB_KIND", "slots")
make, parts = KINDS[KIND]
held = []
SIZE = sum(-(-sys.getsizeof(o) // 16) * 16 for o in parts(1 << 20))


def remember(n):
    held.append(make(n))


def serve(n):
    if SAME:
        return len([make(n * SAME + i) for i in range(200 * SAME)])
    return len([(n, str(n)) for n in range(20_000)])


SAME = int(os.environ.get("LAB_SAME", 0))
for n, _ in enumerate(lab.pieces(SIZE)):
    remember(n)
    if n % (200 if SAME else 2000) == 0:
        serve((1 << 30) + n)
layers = {"python_in_use": len(held) * SIZE, "heap_in_use": len(held) * 8}
lab.finish(True, layers, ["remember"])
