"""PyTorch: its own kernel for the softmax of dot products, for any mask."""

from typing import Any

import torch

from limelight.core.block import Block
from limelight.engine import thresholds
from limelight.engine.block_sizes import Sizes, narrow
from limelight.engine.call import AttentionCall
from limelight.engine.mask_decomposition import divided
from limelight.engine.torch import blockwise
from limelight.masks import Causal, both

attention = torch.nn.functional.scaled_dot_product_attention
# On a GPU its kernels that hold few scores at a time take vectors whose size is a multiple of this.
MULTIPLE = 8
# From so many queries on, keys are read so often that it pays to lay those of a head side by side first.
MANY = 2048


def output(call: AttentionCall, value: Any) -> Any:
    """The output (B, N, T, V) of a prepared question whose score is a dot product, normalised by softmax."""
    causal, keys, queries, rest = divided(call.mask, call.block)
    if causal and keys is not None:
        # The kernel takes one of the two.
        rest = both(rest, Causal("start"))
    if rest is None:
        permitted = None if keys is None else keys(call.block)
        found = kernel(call, call.query, call.key, value, permitted, causal)
    else:
        rows = thresholds.current(call.query).rows
        sizes = Sizes(call.block.batch.total, call.block.heads.total, min(rows, narrow(call) or rows))
        found = blockwise.by_blocks(call, value, compute, sizes)
    if rest is None and queries is not None:
        found = torch.where(queries(call.block), found, torch.zeros((), dtype=found.dtype, device=found.device))
    return found


def compute(call: AttentionCall, block: Block, query: Any, key: Any, value: Any) -> Any:
    """The output of one block of rows."""
    full = call.mask is None or call.mask.block_kind(block) == "full"
    permitted = None if full or call.mask is None else call.mask(block)
    return kernel(call, query, key, value, permitted, False)


def kernel(call: AttentionCall, query: Any, key: Any, value: Any, permitted: Any, causal: bool) -> Any:
    """PyTorch's kernel with the scale of a question's score, for a mask (b, n, t, s), a part of which may have length 1."""
    score: Any = call.score
    normalizer: Any = call.normalizer
    scale = score.factor(query.shape[-1]) / normalizer.temperature
    dtype = common = value.dtype
    if not query.dtype == key.dtype == dtype:
        if not query.is_cuda:
            common = torch.promote_types(torch.promote_types(query.dtype, key.dtype), dtype)
        query, key, value = (tensor.to(common) for tensor in (query, key, value))
    if not query.is_cuda and query.shape[-2] >= MANY:
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    width = value.shape[-1]
    # Its kernels want queries, keys and values of one size; zeros change no product.
    size = max(query.shape[-1], width)
    size += -size % MULTIPLE if query.is_cuda else 0
    if not query.shape[-1] == key.shape[-1] == width == size:
        query, key, value = (
            tensor if tensor.shape[-1] == size else torch.nn.functional.pad(tensor, (0, size - tensor.shape[-1]))
            for tensor in (query, key, value)
        )
    some = None
    if permitted is not None:
        if query.is_cuda:
            # There a row that permits nothing gives anything: let it be all, and then nothing.
            some = permitted.any(-1, keepdim=True)
            permitted = permitted | ~some
        if permitted.shape[-2] == 1:
            # Bool masks are turned to floats at full size, floats of length 1 are only expanded.
            permitted = torch.zeros((), dtype=common, device=query.device).where(permitted, float("-inf"))
        permitted = permitted.expand(*(1, 1, *permitted.shape)[-4:-2], query.shape[-2], key.shape[-2])
    found = grouped(query, key, value, permitted, causal, scale)
    found = found if some is None else torch.where(some, found, torch.zeros((), dtype=found.dtype, device=found.device))
    found = found[..., :width] if size != width else found
    return found if dtype == common else found.to(dtype)


def grouped(query: Any, key: Any, value: Any, permitted: Any, causal: bool, scale: float) -> Any:
    """The kernel, for keys that serve several query heads each, without repeating them."""
    batch, heads, rows, size = query.shape
    kept = key.shape[1]
    if kept in (1, heads):
        if kept < heads:
            key, value = (tensor.expand(-1, heads, -1, -1) for tensor in (key, value))
        return attention(query, key, value, attn_mask=permitted, is_causal=causal, scale=scale)
    group = heads // kept
    query = query.reshape(batch * kept, group, rows, size)
    key, value = (
        tensor.reshape(batch * kept, 1, *tensor.shape[2:]).expand(-1, group, -1, -1) for tensor in (key, value)
    )
    if permitted is not None:
        permitted = permitted.expand(batch, heads, -1, -1).reshape(batch * kept, group, *permitted.shape[2:])
    found = attention(query, key, value, attn_mask=permitted, is_causal=causal, scale=scale)
    return found.reshape(batch, heads, rows, value.shape[-1])
