"""A tiny image projector with random weights, so that mtmd's real code runs where no package carries one."""

from pathlib import Path

import gguf
import numpy as np


def write_projector(path: Path, *, width: int, side: int = 32, patch: int = 8, inner: int = 32) -> Path:
    """Write an Idefics 3 projector for a model whose embeddings are so wide; an image becomes four rows or more."""
    chance = np.random.default_rng(11)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("idefics3")
    writer.add_vision_image_size(side)
    writer.add_vision_patch_size(patch)
    writer.add_vision_embedding_length(inner)
    writer.add_vision_feed_forward_length(2 * inner)
    writer.add_vision_projection_dim(width)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(4)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_use_gelu(True)
    writer.add_vision_projector_scale_factor(2)
    writer.add_vision_preproc_image_size(side)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, chance.normal(0, 0.3, shape).astype(np.float32))

    def linear(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(inner, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(inner, np.float32))

    add("v.patch_embd.weight", inner, 3, patch, patch)
    add("v.patch_embd.bias", inner)
    add("v.position_embd.weight", (side // patch) ** 2, inner)
    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        linear(f"v.blk.0.{part}", inner, inner)
    norm("v.blk.0.ln1")
    norm("v.blk.0.ln2")
    linear("v.blk.0.ffn_up", 2 * inner, inner)
    linear("v.blk.0.ffn_down", inner, 2 * inner)
    norm("v.post_ln")
    add("mm.model.fc.weight", width, inner * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
