"""Recipes of Transformers: scaled dot products in several heads, and what each paper adds to them."""

from typing import Any

from limelight.layers import MultiHeadAttention
from limelight.masks import BigBird, Causal, Mask, SlidingWindow, intersect
from limelight.normalizers import Sink
from limelight.positions import ALiBi, RelativePositionBias, Rotary, Shaw, TransformerXL
from limelight.scores import Dot, SoftCap


def vaswani(num_heads: int, key_dim: int, *, causal: bool = False, **kwargs: Any) -> MultiHeadAttention:
    r"""Attention of the Transformer: scaled dot products in several heads.

    $$\mathrm{head}_n = \mathrm{softmax}\!\left(\frac{Q_n K_n^\top}{\sqrt{H}}\right) V_n, \qquad
    y = [\mathrm{head}_1; \dots; \mathrm{head}_N]\, W^O$$

    Args:
        num_heads: N.
        key_dim: H.
        causal: Whether a step attends only to itself and earlier steps, as in the decoder.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`, as in the paper.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.vaswani(4, 8, causal=True)(steps, steps).shape
        (None, None, 32)

    References:
        Vaswani et al. 2017, arXiv:1706.03762.
    """
    return _multi_head(num_heads, key_dim, recipe_mask=_causal_mask(causal), **kwargs)


def shaw(
    num_heads: int, key_dim: int, *, max_distance: int = 16, causal: bool = False, **kwargs: Any
) -> MultiHeadAttention:
    r"""Relative positions as learned vectors that are added to the keys.

    $$s_{ij} = \frac{q_i \cdot (k_j + a_{\mathrm{clip}(j - i, -k, k)})}{\sqrt{H}}$$

    The vectors are shared between heads. The paper adds vectors to the values too, but finds no loss without them (table 3);
    they are left out here.

    Args:
        num_heads, key_dim: N and H.
        max_distance: k; larger distances are clipped to it.
        causal: Whether a step attends only to itself and earlier steps.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.shaw(4, 8)(steps, steps).shape
        (None, None, 32)

    References:
        Shaw et al. 2018, arXiv:1803.02155.
    """
    return _multi_head(num_heads, key_dim, score=Dot() + Shaw(max_distance), recipe_mask=_causal_mask(causal), **kwargs)


def t5(
    num_heads: int,
    key_dim: int,
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    causal: bool = False,
    **kwargs: Any,
) -> MultiHeadAttention:
    r"""Attention of T5: dot products that are *not* scaled, and a learned number for each head and bucket of distances.

    $$s_{ij} = q_i \cdot k_j + b_{n, \mathrm{bucket}(j - i)}$$

    T5 shares one table among all layers of a stack; here each layer has its own.

    Args:
        num_heads, key_dim: N and H.
        num_buckets, max_distance: As in `limelight.positions.RelativePositionBias`.
        causal: Whether a step attends only to itself and earlier steps, as in the decoder; all buckets then serve earlier steps.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`, as in the paper.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.t5(4, 8)(steps, steps).shape
        (None, None, 32)

    References:
        Raffel et al. 2020, arXiv:1910.10683.
    """
    score = Dot(scale=1.0) + RelativePositionBias(num_buckets, max_distance, bidirectional=not causal)
    return _multi_head(num_heads, key_dim, score=score, recipe_mask=_causal_mask(causal), **kwargs)


def transformer_xl(
    num_heads: int, key_dim: int, *, size: int | None = None, base: float = 10000.0, **kwargs: Any
) -> MultiHeadAttention:
    r"""Attention of Transformer-XL: the query and a learned vector are scored against content and distance; causal over a memory.

    $$s_{ij} = \frac{1}{\sqrt{H}} \left( (q_i + u_n) \cdot k_j + (q_i + v_n) \cdot W_n r_{i-j} \right), \qquad
    r_d = [\sin(d\,\omega); \cos(d\,\omega)]$$

    Pass memory and segment, concatenated, as the value: the last query is aligned with the last key.

    Args:
        num_heads, key_dim: N and H.
        size: Width of the sinusoids, in the paper that of the model; H when not given.
        base: $\omega_f = \mathrm{base}^{-2f/E}$.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`, as in the paper.

    Returns:
        A layer from query (B, T, D) and value (B, S, D), S the lengths of memory and segment together, to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> memory, segment = keras.Input((20, 32)), keras.Input((10, 32))
        >>> ll.recipes.transformer_xl(4, 8)(segment, keras.ops.concatenate([memory, segment], 1)).shape
        (None, 10, 32)

    References:
        Dai et al. 2019, arXiv:1901.02860.
    """
    return _multi_head(num_heads, key_dim, score=TransformerXL(size, base), recipe_mask=Causal(), **kwargs)


def alibi(num_heads: int, key_dim: int, *, causal: bool = True, **kwargs: Any) -> MultiHeadAttention:
    r"""Attention with ALiBi: a penalty that grows with the distance, with a slope for each head, replaces position embeddings.

    $$s_{ij} = \frac{q_i \cdot k_j}{\sqrt{H}} - m_n \lvert i - j \rvert, \qquad m_n = 2^{-8 (n + 1) / N}$$

    Args:
        num_heads, key_dim: N and H. If N is not a power of two, slopes are taken from the powers around it.
        causal: Whether a step attends only to itself and earlier steps, as in the paper.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.alibi(4, 8)(steps, steps).shape
        (None, None, 32)

    References:
        Press et al. 2022, arXiv:2108.12409.
    """
    return _multi_head(num_heads, key_dim, score=Dot() + ALiBi(), recipe_mask=_causal_mask(causal), **kwargs)


def roformer(
    num_heads: int, key_dim: int, *, base: float = 10000.0, causal: bool = False, **kwargs: Any
) -> MultiHeadAttention:
    r"""Attention of RoFormer: neighbouring pairs of features are rotated by angles that grow with the position.

    $$s_{ij} = \frac{(R_i q_i) \cdot (R_j k_j)}{\sqrt{H}}$$

    where $R_p$ rotates features 2f and 2f + 1 by $p\,\mathrm{base}^{-2f/H}$.

    Args:
        num_heads, key_dim: N and H, which is even.
        base: Base of the frequencies.
        causal: Whether a step attends only to itself and earlier steps.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.roformer(4, 8)(steps, steps).shape
        (None, None, 32)

    References:
        Su et al. 2021, arXiv:2104.09864.
    """
    return _multi_head(
        num_heads, key_dim, score=Rotary(Dot(), base, interleaved=True), recipe_mask=_causal_mask(causal), **kwargs
    )


def bigbird(
    num_heads: int,
    key_dim: int,
    *,
    block_size: int = 64,
    num_global: int = 2,
    window: int = 1,
    num_random: int = 3,
    seed: int = 0,
    use_bias: bool = True,
    **kwargs: Any,
) -> MultiHeadAttention:
    r"""Attention of BigBird: scaled dot products within blocks that are global, near, or random.

    $$s_{ij} = \frac{q_i \cdot k_j}{\sqrt{H}}, \qquad m_{ij} = \mathrm{global} \lor \mathrm{near} \lor \mathrm{random}$$

    on the blocks of i and j. Random blocks are drawn among earlier blocks, and the pair is symmetric, so that it does not change
    when a sequence grows or is padded; in the paper each block draws its own.

    Args:
        num_heads, key_dim: N and H.
        block_size: Number of positions in a block.
        num_global: Number of blocks at the start that attend to all and are attended to by all.
        window: Number of blocks on either side that a block attends to.
        num_random: Number of random blocks that a block draws.
        seed: Seed of the random blocks; layers of a stack should differ.
        use_bias: Whether the projections have a bias, as in the models.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.bigbird(4, 8, block_size=16)(steps, steps).shape
        (None, None, 32)

    References:
        Zaheer et al. 2020, arXiv:2007.14062.
    """
    mask = BigBird(block_size, num_global, window, num_random, seed)
    return _multi_head(num_heads, key_dim, use_bias=use_bias, recipe_mask=mask, **kwargs)


def mistral(
    num_heads: int, key_dim: int, num_kv_heads: int, *, window: int = 4096, base: float = 10000.0, **kwargs: Any
) -> MultiHeadAttention:
    r"""Attention of Mistral 7B: rotary, with grouped heads, causal within a window.

    $$s_{ij} = \frac{(R_i q_i) \cdot (R_j k_j)}{\sqrt{H}}, \qquad m_{ij} = (i - W < j \le i)$$

    Args:
        num_heads, key_dim: N and H; 32 and 128 in the paper.
        num_kv_heads: K, which divides N; 8 in the paper.
        window: W, the number of positions with the query's own included, as in the model's code.
        base: Base of the rotary frequencies.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`, as in the paper.

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
    score, mask = Rotary(Dot(), base), _causal_window(window)
    return _multi_head(num_heads, key_dim, num_kv_heads=num_kv_heads, score=score, recipe_mask=mask, **kwargs)


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
    r"""Attention of Gemma 2: rotary scores with a soft cap, causal, within a window in every other layer.

    $$s_{ij} = c \tanh\!\left(\frac{(R_i q_i) \cdot (R_j k_j)}{c \sqrt{a}}\right), \qquad m_{ij} = (i - W < j \le i)$$

    Args:
        num_heads, key_dim: N and H.
        num_kv_heads: K, which divides N.
        window: W, the number of positions with the query's own included; None for the layers in between, which attend to all
            earlier positions.
        cap: c.
        query_pre_attn_scalar: a, whose square root divides the scores; H when not given, as in the 2B and 9B models. The 27B
            model has 144, with heads of size 128.
        base: Base of the rotary frequencies.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`; no bias unless `use_bias=True`, as in the paper.

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
    return _multi_head(
        num_heads, key_dim, num_kv_heads=num_kv_heads, score=score, recipe_mask=_causal_window(window), **kwargs
    )


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
    r"""Attention of gpt-oss: rotary, with grouped heads, and a learned sink logit in each head.

    $$w_{ij} = \frac{e^{s_{ij}}}{e^{b_n} + \sum_k e^{s_{ik}}}, \qquad s_{ij} = \frac{(R_i q_i) \cdot (R_j k_j)}{\sqrt{H}}$$

    over $i - W < j \le i$. In the models, layers with and without a window alternate.

    Args:
        num_heads, key_dim: N and H; 64 and 64 in the paper.
        num_kv_heads: K, which divides N; 8 in the paper.
        window: W, the number of positions with the query's own included; None for the layers that attend to all earlier
            positions.
        base: Base of the rotary frequencies.
        scaling: Scaling of the rotary frequencies; the models reach 131072 positions with
            `limelight.positions.YaRNScaling(32.0, original_length=4096)`, whose bounds are rounded here, but not in their code.
        use_bias: Whether the projections have a bias, as in the models.
        kwargs: Arguments of `limelight.layers.MultiHeadAttention`.

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
    return _multi_head(
        num_heads,
        key_dim,
        use_bias=use_bias,
        num_kv_heads=num_kv_heads,
        score=Rotary(Dot(), base, scaling=scaling),
        recipe_mask=_causal_window(window),
        normalizer=Sink(learned=True),
        **kwargs,
    )


def _multi_head(
    num_heads: int,
    key_dim: int,
    *,
    recipe_mask: Mask | None,
    mask: Mask | None = None,
    use_bias: bool = False,
    **kwargs: Any,
) -> MultiHeadAttention:
    """Return multi-head attention as most papers define it, without biases, in which both masks hold."""
    return MultiHeadAttention(num_heads, key_dim, mask=intersect(recipe_mask, mask), use_bias=use_bias, **kwargs)


def _causal_mask(causal: bool) -> Mask | None:
    return Causal() if causal else None


def _causal_window(window: int | None) -> Mask:
    """Return a causal mask, limited to the last `window` positions if given."""
    return Causal() if window is None else Causal() & SlidingWindow(window - 1, 0)
