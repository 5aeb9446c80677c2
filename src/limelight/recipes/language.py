"""Recipes of language models: rotary, grouped heads, and windows."""

from typing import Any

from limelight.layers import MultiHeadAttention
from limelight.normalizers import Sink
from limelight.positions import Rotary
from limelight.recipes.heads import heads, recent
from limelight.scores import Dot, SoftCap


def mistral(
    num_heads: int, key_dim: int, num_kv_heads: int, *, window: int = 4096, base: float = 10000.0, **kwargs: Any
) -> MultiHeadAttention:
    r"""Mistral 7B's: rotary, grouped heads, causal within a window.

    $$s_{ij} = \frac{(R_i q_i) \cdot (R_j k_j)}{\sqrt{H}}, \qquad m_{ij} = (i - W < j \le i)$$

    Args:
        num_heads, key_dim: N and H; 32 and 128 in the paper.
        num_kv_heads: K, which divides N; 8 in the paper.
        window: W positions, the query's own included, as the model's code counts them.
        base: of the rotary frequencies.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`, as in the paper.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.mistral(8, 4, num_kv_heads=2, window=16)(steps, steps).shape
        (None, None, 32)

    References:
        Jiang et al. 2023, arXiv:2310.06825.
    """
    score, mask = Rotary(Dot(), base), recent(window)
    return heads(num_heads, key_dim, num_kv_heads=num_kv_heads, score=score, mask=mask, **kwargs)


def gemma(
    num_heads: int,
    key_dim: int,
    num_kv_heads: int,
    *,
    window: int | None = 4096,
    cap: float = 50.0,
    query_pre_attn_scalar: float | None = None,
    base: float = 10000.0,
    **kwargs: Any,
) -> MultiHeadAttention:
    r"""Gemma 2's: rotary scores that cannot exceed a cap, causal, within a window in every other layer.

    $$s_{ij} = c \tanh\!\left(\frac{(R_i q_i) \cdot (R_j k_j)}{c \sqrt{a}}\right), \qquad m_{ij} = (i - W < j \le i)$$

    Args:
        num_heads, key_dim: N and H.
        num_kv_heads: K, which divides N.
        window: W positions, the query's own included; None for the layers between, which see all that came before.
        cap: c.
        query_pre_attn_scalar: a, which divides as its root; H when not given, as in the models of 2B and 9B. That of 27B has
            144 with heads of 128.
        base: of the rotary frequencies.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`, as in the paper.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> layers = [ll.recipes.gemma(8, 4, num_kv_heads=4, window=window) for window in (16, None)]
        >>> layers[1](steps, layers[0](steps, steps)).shape
        (None, None, 32)

    References:
        Gemma Team 2024, arXiv:2408.00118.
    """
    scale = None if query_pre_attn_scalar is None else query_pre_attn_scalar**-0.5
    score = SoftCap(Rotary(Dot(scale), base), cap)
    return heads(num_heads, key_dim, num_kv_heads=num_kv_heads, score=score, mask=recent(window), **kwargs)


def gpt_oss(
    num_heads: int,
    key_dim: int,
    num_kv_heads: int,
    *,
    window: int | None = 128,
    base: float = 150000.0,
    scaling: Any = None,
    use_bias: bool = True,
    **kwargs: Any,
) -> MultiHeadAttention:
    r"""gpt-oss's: rotary, grouped heads, and a learned logit in each head that takes weight and gives nothing.

    $$w_{ij} = \frac{e^{s_{ij}}}{e^{b_n} + \sum_k e^{s_{ik}}}, \qquad s_{ij} = \frac{(R_i q_i) \cdot (R_j k_j)}{\sqrt{H}}$$

    over $i - W < j \le i$. Layers with and without a window take turns; the caller alternates.

    Args:
        num_heads, key_dim: N and H; 64 and 64 in the paper.
        num_kv_heads: K, which divides N; 8 in the paper.
        window: W positions, the query's own included; None for the layers that see all that came before.
        base: of the rotary frequencies.
        scaling: of the rotary frequencies; the models reach 131072 positions by `limelight.positions.YaRNScaling(32.0, trained=4096)`, the
            bounds of which are rounded here and not in their code.
        use_bias: whether the projections have a bias; they do in the models.
        kwargs: of `limelight.layers.MultiHeadAttention`.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.gpt_oss(8, 4, num_kv_heads=1, window=16)(steps, steps).shape
        (None, None, 32)

    References:
        OpenAI 2025, arXiv:2508.10925; Xiao et al. 2023, arXiv:2309.17453 (sinks).
    """
    parts: dict[str, Any] = {"score": Rotary(Dot(), base, scaling=scaling), "mask": recent(window)}
    return heads(
        num_heads,
        key_dim,
        use_bias=use_bias,
        num_kv_heads=num_kv_heads,
        normalizer=Sink(learned=True),
        **parts,
        **kwargs,
    )
