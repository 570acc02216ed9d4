"""What every Python program of the lab shares; see README.md for the convention."""
import gc
import json
import os
import select
import sys
import time

RATE = int(os.environ.get("LAB_RATE", 0))
BYTES = int(os.environ.get("LAB_BYTES", 0)) or (sys.maxsize if RATE else 48 << 20)
SECONDS = float(os.environ.get("LAB_SECONDS", 30))
BEGUN = time.monotonic()
taken = 0


def wait(seconds):
    """Waits at most that long; whether the program must end."""
    left = BEGUN + SECONDS - time.monotonic()
    if left <= 0:
        return True
    ready, _, _ = select.select([sys.stdin], [], [], max(0, min(seconds, left)))
    return bool(ready) or seconds >= left


def pieces(size):
    """Sizes to take, in the pace of LAB_RATE, until all are taken."""
    global taken
    while taken < BYTES:
        if RATE and wait(max(0, BEGUN + taken / RATE - time.monotonic())):
            return
        piece = min(size, BYTES - taken)
        taken += piece
        yield piece


def finish(leak, layers, functions=()):
    """Prints the truth and stays until told to end."""
    truth = {
        "program": os.path.basename(sys.argv[0]),
        "pid": os.getpid(),
        "seconds": round(time.monotonic() - BEGUN, 3),
        "leak": leak,
        "layers": layers,
        "beyond_rss": {},
        "functions": list(functions),
    }
    gc.collect()
    print(json.dumps(truth), flush=True)
    while not wait(1):
        pass
