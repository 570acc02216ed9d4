"""families OUT: small models of random weights, for families of which no real model is at hand.

Every family comes in three files that hold all tensor types between them, several types in each:
`float` (F32, F16, BF16), `legacy` (Q8_0, Q4_0, Q4_1, Q5_0, Q5_1) and `k` (Q4_K, Q5_K, Q6_K). Sizes
are tiny and lopsided, so that a mix-up of two of them cannot go unseen. Seeds are fixed: a second
run writes the same bytes.
"""

import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.quants import quantize

VOCAB = 72

MIXES = {
    "float": [Type.F32, Type.F16, Type.BF16],
    "legacy": [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1],
    "k": [Type.Q4_K, Type.Q5_K, Type.Q6_K],
}


@dataclass
class Family:
    """What a family has that others have not."""

    arch: str
    layers: int = 2
    heads: int | None = 4
    kv_heads: int = 2
    head_dim: int = 16
    rope_base: float = 10_000.0
    qkv_bias: bool = False
    head_norms: bool = False
    post_norms: bool = False
    own_head: bool = True
    rope_divisors: bool = False
    keys: dict = field(default_factory=dict)


FAMILIES = {
    # Llama 3.1: frequencies stretched by a tensor of divisors.
    "llama": Family("llama", rope_base=500_000.0, rope_divisors=True),
    # Mistral: heads wider than the model's width over their count.
    "mistral": Family("llama", heads=3, kv_heads=1, head_dim=32, rope_base=1_000_000.0),
    # Qwen2: as many heads as fill the width, all that its loaders take.
    "qwen2": Family("qwen2", heads=None, qkv_bias=True, rope_base=1_000_000.0, own_head=False,
                    keys={"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
                          "rope.scaling.original_context_length": 32}),
    "qwen3": Family("qwen3", head_norms=True, heads=6, kv_heads=3, rope_base=1_000_000.0),
    # Gemma 3: five layers with a window, then one without, whose positions are stretched.
    "gemma3": Family("gemma3", layers=6, heads=2, kv_heads=1, head_norms=True, post_norms=True,
                     own_head=False, rope_base=1_000_000.0,
                     keys={"rope.scaling.type": "linear", "rope.scaling.factor": 8.0,
                           "attention.sliding_window": 12}),
}


def half(numbers):
    return np.asarray(numbers, dtype=np.float16).view(np.uint8).reshape(-1, 2)


def k_blocks(random, ty, count):
    """Random blocks of the K types, which `gguf` reads but does not write: every bit pattern of
    scales and quants is valid, only the two factors are chosen, so that weights are around 1/16."""
    def noise(size):
        return random.integers(0, 256, (count, size), dtype=np.uint8)

    spread = random.uniform(0.5, 1.5, count)
    if ty == Type.Q6_K:
        return np.hstack([noise(128), noise(64), noise(16), half(4.5e-5 * spread)])
    d, middle, quants = {Type.Q4_K: (3.5e-4, 7.5, 128), Type.Q5_K: (1.8e-4, 15.5, 160)}[ty]
    return np.hstack([half(d * spread), half(d * middle * spread), noise(12), noise(quants)])


class Builder:
    def __init__(self, name, family, mix):
        self.random = np.random.default_rng(zlib.crc32(f"{name}-{mix}".encode()))
        self.types = MIXES[mix]
        self.family = family
        self.width = {"float": 32, "legacy": 64, "k": 256}[mix]
        # K rows are 256 wide, which makes matrices big: one layer has them all.
        self.layers = 1 if mix == "k" and family.layers == 2 else family.layers
        self.ffn = {"float": 48, "legacy": 96, "k": 32}[mix]
        self.heads = family.heads or self.width // family.head_dim
        self.count = 0

    def matrix(self, writer, name, rows, columns):
        ty = self.types[self.count % len(self.types)]
        self.count += 1
        if ty in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
            if columns % 256 == 0:
                blocks = k_blocks(self.random, ty, rows * columns // 256)
                writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=ty)
                return
            ty = Type.Q8_0
        weights = self.random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
        data = weights if ty == Type.F32 else quantize(weights, ty)
        writer.add_tensor(name, data, raw_dtype=ty)

    def norm(self, writer, name, size):
        writer.add_tensor(name, self.random.uniform(0.5, 1.5, size).astype(np.float32))

    def bias(self, writer, name, size):
        writer.add_tensor(name, self.random.normal(0, 0.3, size).astype(np.float32))

    def metadata(self, writer, name):
        family, arch = self.family, self.family.arch
        writer.add_name(f"random {name}")
        writer.add_context_length(128)
        writer.add_embedding_length(self.width)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.ffn)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(family.kv_heads)
        writer.add_key_length(family.head_dim)
        writer.add_value_length(family.head_dim)
        writer.add_rope_dimension_count(family.head_dim)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(family.rope_base)
        writer.add_vocab_size(VOCAB)
        writer.add_tokenizer_model("none")
        for key, value in family.keys.items():
            add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
            add[type(value)](f"{arch}.{key}", value)

    def layer(self, writer, i):
        family, width = self.family, self.width
        q, kv = self.heads * family.head_dim, family.kv_heads * family.head_dim
        at = f"blk.{i}."
        self.norm(writer, at + "attn_norm.weight", width)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            self.matrix(writer, f"{at}attn_{part}.weight", rows, width)
            if family.qkv_bias:
                self.bias(writer, f"{at}attn_{part}.bias", rows)
        self.matrix(writer, at + "attn_output.weight", width, q)
        if family.head_norms:
            self.norm(writer, at + "attn_q_norm.weight", family.head_dim)
            self.norm(writer, at + "attn_k_norm.weight", family.head_dim)
        if family.post_norms:
            self.norm(writer, at + "post_attention_norm.weight", width)
            self.norm(writer, at + "post_ffw_norm.weight", width)
        self.norm(writer, at + "ffn_norm.weight", width)
        self.matrix(writer, at + "ffn_gate.weight", self.ffn, width)
        self.matrix(writer, at + "ffn_up.weight", self.ffn, width)
        self.matrix(writer, at + "ffn_down.weight", width, self.ffn)

    def write(self, path):
        writer = GGUFWriter(path, self.family.arch)
        self.metadata(writer, path.stem)
        self.matrix(writer, "token_embd.weight", VOCAB, self.width)
        if self.family.rope_divisors:
            divisors = np.linspace(1, 8, self.family.head_dim // 2, dtype=np.float32)
            writer.add_tensor("rope_freqs.weight", divisors)
        for i in range(self.layers):
            self.layer(writer, i)
        self.norm(writer, "output_norm.weight", self.width)
        if self.family.own_head:
            self.matrix(writer, "output.weight", VOCAB, self.width)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, family in FAMILIES.items():
        for mix in MIXES:
            path = out / f"{name}-{mix}.gguf"
            Builder(name, family, mix).write(path)
            assert path.stat().st_size <= 300 << 10, f"{path} is too big for a fixture"


if __name__ == "__main__":
    main()
