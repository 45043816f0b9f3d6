"""Small models of random weights, so that llama.cpp's real code runs where no package carries a file."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, FEED_FORWARD, HEADS, CACHE, CONTEXT = 64, 128, 4, 3, 2048


def write_lfm2(path: Path, vocabulary: Path) -> Path:
    """Write an LFM2: short convolutions and attention by turns, so that its state can't be cut.

    The tokeniser is that of another GGUF file.
    """
    reader = gguf.GGUFReader(vocabulary)
    writer = gguf.GGUFWriter(path, "lfm2")
    kv_heads = [0, 2, 0, 2]
    writer.add_block_count(len(kv_heads))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_shortconv_l_cache(CACHE)
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            _copy(writer, name, field)
    tokens = len(reader.fields["tokenizer.ggml.tokens"].data)
    writer.add_vocab_size(tokens)

    random = np.random.default_rng(7)

    def add(name: str, *shape: int) -> None:
        weights = np.ones(shape) if "norm" in name else random.normal(0, 0.2, shape)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))

    add("token_embd", tokens, WIDTH)
    add("token_embd_norm", WIDTH)
    head = WIDTH // HEADS
    for layer, kv in enumerate(kv_heads):
        for part in ("ffn_norm", "attn_norm"):
            add(f"blk.{layer}.{part}", WIDTH)
        add(f"blk.{layer}.ffn_gate", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_up", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down", WIDTH, FEED_FORWARD)
        if kv:
            for part in ("attn_q_norm", "attn_k_norm"):
                add(f"blk.{layer}.{part}", head)
            for part, size in (("q", WIDTH), ("k", kv * head), ("v", kv * head), ("output", WIDTH)):
                add(f"blk.{layer}.attn_{part}", size, WIDTH)
        else:
            add(f"blk.{layer}.shortconv.conv", WIDTH, CACHE)
            add(f"blk.{layer}.shortconv.in_proj", 3 * WIDTH, WIDTH)
            add(f"blk.{layer}.shortconv.out_proj", WIDTH, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _copy(writer: Any, name: str, field: Any) -> None:
    kind, *inner = field.types
    writer.add_key_value(name, field.contents(), kind, inner[0] if inner else None)
