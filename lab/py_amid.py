"""Leaks small objects amid bursts of others: who makes Python's arenas grow is rarely who fills them."""
import sys

import lab


class Session:
    __slots__ = ("a", "b", "c", "d")

    def __init__(self, n):
        self.a = n + 0.5


held = []
SIZE = sum(-(-sys.getsizeof(o) // 16) * 16 for o in (Session(1), 0.5))


def remember(n):
    held.append(Session(n))


def serve():
    return len([(n, str(n)) for n in range(20_000)])


for n, _ in enumerate(lab.pieces(SIZE)):
    remember(n)
    if n % 2000 == 0:
        serve()
layers = {"python_in_use": len(held) * SIZE, "heap_in_use": len(held) * 8}
lab.finish(True, layers, ["remember"])
