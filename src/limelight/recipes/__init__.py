"""Attention as the papers have it: each recipe is named after its paper and made of the parts.

What a recipe returns is an ordinary layer. Whatever the recipe does not settle is passed on: `dropout`, `num_kv_heads`, `name`, and
all else that the layer takes.
"""

from limelight.recipes.language import gemma, gpt_oss, mistral
from limelight.recipes.reading import bahdanau, han, luong
from limelight.recipes.transformers import alibi, bigbird, roformer, shaw, t5, transformer_xl, vaswani

__all__ = [
    "alibi",
    "bahdanau",
    "bigbird",
    "gemma",
    "gpt_oss",
    "han",
    "luong",
    "mistral",
    "roformer",
    "shaw",
    "t5",
    "transformer_xl",
    "vaswani",
]
