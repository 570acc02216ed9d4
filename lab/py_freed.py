"""Seems to leak: small objects are freed, one survivor in each pool keeps the arenas."""
import sys

import lab

everything = [n + 0.5 for n, _ in enumerate(lab.pieces(32))]
count = len(everything)
kept = everything[::500]
# The list's own slots go too, so that only the floats' arenas are left.
del everything
size = -(-sys.getsizeof(0.5) // 16) * 16
lab.finish(False, {"python_free": (count - len(kept)) * size})
