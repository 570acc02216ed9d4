"""Leaks small objects: they live in CPython's own arenas."""
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


for n, _ in enumerate(lab.pieces(SIZE)):
    remember(n)
layers = {"python_in_use": len(held) * SIZE, "heap_in_use": len(held) * 8}
lab.finish(True, layers, ["remember"])
