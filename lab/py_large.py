"""Leaks byte arrays: they are over 512 bytes and live in the allocator's heap."""
import lab

held = []


def remember(size):
    held.append(bytearray(b"x" * size))


for size in lab.pieces(20_000):
    remember(size)
lab.finish(True, {"heap_in_use": sum(len(block) for block in held)}, ["remember"])
