"""blocks OUT: random blocks of every tensor type and what the `gguf` package dequantises them to.

Writes OUT/blocks.json: type, bytes in hex, elements. Every bit pattern of the quants is a valid one;
of the scales only finite ones are taken.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
BLOCKS = 40


def main():
    random = np.random.default_rng(7)
    cases = []
    for name in TYPES:
        ty = Type[name]
        elements, size = GGML_QUANT_SIZES[ty]
        found = 0
        while found < max(2, BLOCKS // elements):
            block = random.integers(0, 256, (1, size), dtype=np.uint8)
            typed = block.view({"F32": np.float32, "F16": np.float16}.get(name, np.uint8))
            with np.errstate(over="ignore", invalid="ignore"):
                values = dequantize(typed, ty).reshape(-1).astype(np.float32)
            if np.isfinite(values).all():
                numbers = [float(x) for x in values]
                cases.append({"type": name, "bytes": block.tobytes().hex(), "values": numbers})
                found += 1
    lines = ",\n".join(json.dumps(case) for case in cases)
    (Path(sys.argv[1]) / "blocks.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
