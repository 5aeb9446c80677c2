"""PyTorch: its own kernel for the softmax of dot products, under any mask."""

from typing import Any

import torch

from limelight.core.block import Block
from limelight.engine import thresholds
from limelight.engine.call import AttentionCall
from limelight.engine.mask_decomposition import decompose_mask
from limelight.engine.thresholds import BlockSizes, rows_of_narrow_blocks
from limelight.engine.torch import blockwise
from limelight.masks import Causal, intersect
from limelight.normalizers import Softmax
from limelight.scores import Dot

attention = torch.nn.functional.scaled_dot_product_attention
# On a GPU, the kernels that save memory take vectors of a size that is a multiple of this.
SIZE_MULTIPLE = 8
# From this number of queries on, keys are read so often that it pays to make them contiguous.
MIN_ROWS_TO_COPY = 2048


def matches(call: AttentionCall) -> bool:
    """Return True if the parts of a prepared call are those of the kernel. A subclass may compute something else."""
    return type(call.score) is Dot and type(call.normalizer) is Softmax


def compute_output(call: AttentionCall, value: Any) -> Any:
    """Compute the output (B, N, T, V) of a prepared call whose score is a dot product, normalized by softmax."""
    causal, keys, queries, rest = decompose_mask(call.mask, call.block)
    if causal and keys is not None:
        # The kernel takes only one of the two.
        rest = intersect(rest, Causal("start"))
    if rest is not None:
        rows = thresholds.current(call.query).rows
        block = call.block
        sizes = BlockSizes(block.batch.total, block.heads.total, min(rows, rows_of_narrow_blocks(call) or rows))
        return blockwise.map_blocks(call, value, compute, sizes)
    permitted = None if keys is None else keys(call.block)
    output = call_kernel(call, call.query, call.key, value, permitted, causal)
    return output if queries is None else zero_rows(output, queries(call.block))


def compute(call: AttentionCall, block: Block, query: Any, key: Any, value: Any) -> Any:
    """Compute the output of one block of rows."""
    is_full = call.mask is None or call.mask.block_kind(block) == "full"
    permitted = None if is_full or call.mask is None else call.mask(block)
    return call_kernel(call, query, key, value, permitted, False)


def call_kernel(call: AttentionCall, query: Any, key: Any, value: Any, permitted: Any, causal: bool) -> Any:
    """Call PyTorch's kernel with the scale of the call's score.

    Args:
        call: The attention call.
        query, key, value: (b, n, t, H), (b, k, s, H), (b, k, s, V).
        permitted: A bool mask that broadcasts to (b, n, t, s), or None.
        causal: Apply the kernel's causal mask. Must be False if `permitted` is given.

    Returns:
        (b, n, t, V), in the dtype of the values.
    """
    score: Any = call.score
    normalizer: Any = call.normalizer
    scale = score.factor(query.shape[-1]) / normalizer.temperature
    dtype = common = value.dtype
    if not query.dtype == key.dtype == dtype:
        if not query.is_cuda:
            common = torch.promote_types(torch.promote_types(query.dtype, key.dtype), dtype)
        query, key, value = (tensor.to(common) for tensor in (query, key, value))
    if not query.is_cuda and query.shape[-2] >= MIN_ROWS_TO_COPY:
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    value_size = value.shape[-1]
    # The kernels take queries, keys and values of one size; zeros change no product.
    size = max(query.shape[-1], value_size)
    size += -size % SIZE_MULTIPLE if query.is_cuda else 0
    if not query.shape[-1] == key.shape[-1] == value_size == size:
        query, key, value = (
            tensor if tensor.shape[-1] == size else torch.nn.functional.pad(tensor, (0, size - tensor.shape[-1]))
            for tensor in (query, key, value)
        )
    has_any = None
    if permitted is not None:
        if query.is_cuda:
            # There a row that may attend to nothing gives arbitrary numbers: let it attend to everything, and zero it below.
            has_any = permitted.any(-1, keepdim=True)
            permitted = permitted | ~has_any
        if permitted.shape[-2] == 1:
            # The kernel converts a bool mask to floats at full size, but only expands one of floats.
            permitted = torch.zeros((), dtype=common, device=query.device).where(permitted, float("-inf"))
        permitted = permitted.expand(*(1, 1, *permitted.shape)[-4:-2], query.shape[-2], key.shape[-2])
    output = call_grouped(query, key, value, permitted, causal, scale)
    output = output if has_any is None else zero_rows(output, has_any)
    output = output if size == value_size else output[..., :value_size]
    return output if dtype == common else output.to(dtype)


def zero_rows(output: Any, keep: Any) -> Any:
    """Zero the rows (b, n, t, V) where `keep`, bool (..., t, 1), is False."""
    return torch.where(keep, output, torch.zeros((), dtype=output.dtype, device=output.device))


def call_grouped(query: Any, key: Any, value: Any, permitted: Any, causal: bool, scale: float) -> Any:
    """Call the kernel for keys that serve several query heads each, without copying them."""
    batch, heads, rows, size = query.shape
    num_kv_heads = key.shape[1]
    if num_kv_heads in (1, heads):
        if num_kv_heads < heads:
            key, value = (tensor.expand(-1, heads, -1, -1) for tensor in (key, value))
        return attention(query, key, value, attn_mask=permitted, is_causal=causal, scale=scale)
    group = heads // num_kv_heads
    query = query.reshape(batch * num_kv_heads, group, rows, size)
    key, value = (
        tensor.reshape(batch * num_kv_heads, 1, *tensor.shape[2:]).expand(-1, group, -1, -1) for tensor in (key, value)
    )
    if permitted is not None:
        permitted = permitted.expand(batch, heads, -1, -1).reshape(batch * num_kv_heads, group, *permitted.shape[2:])
    output = attention(query, key, value, attn_mask=permitted, is_causal=causal, scale=scale)
    return output.reshape(batch, heads, rows, value.shape[-1])
