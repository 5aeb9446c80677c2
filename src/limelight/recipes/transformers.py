"""Recipes of transformers: scaled dot products in heads, and what their papers add to them."""

from typing import Any

from limelight.layers import MultiHeadAttention
from limelight.masks import BigBird, Causal
from limelight.positions import ALiBi, RelativePositionBias, Rotary, Shaw, TransformerXL
from limelight.recipes.heads import causal_mask, heads
from limelight.scores import Dot


def vaswani(num_heads: int, key_dim: int, *, causal: bool = False, **kwargs: Any) -> MultiHeadAttention:
    r"""The Transformer's: scaled dot products in several heads.

    $$\mathrm{head}_n = \mathrm{softmax}\!\left(\frac{Q_n K_n^\top}{\sqrt{H}}\right) V_n, \qquad
    y = [\mathrm{head}_1; \dots; \mathrm{head}_N]\, W^O$$

    Args:
        num_heads: N.
        key_dim: H.
        causal: whether a step sees itself and earlier steps alone, as in the decoder.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`, as in the paper.

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
    return heads(num_heads, key_dim, mask=causal_mask(causal), **kwargs)


def shaw(
    num_heads: int, key_dim: int, *, max_distance: int = 16, causal: bool = False, **kwargs: Any
) -> MultiHeadAttention:
    r"""Relative positions as learned vectors that are added to the keys.

    $$s_{ij} = \frac{q_i \cdot (k_j + a_{\mathrm{clip}(j - i, -k, k)})}{\sqrt{H}}$$

    The vectors are shared between heads. The paper adds vectors to the values too, and loses nothing without them (its table 3);
    they are left out.

    Args:
        num_heads, key_dim: N and H.
        max_distance: k, beyond which all distances are the same.
        causal: whether a step sees itself and earlier steps alone.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`.

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
    return heads(num_heads, key_dim, score=Dot() + Shaw(max_distance), mask=causal_mask(causal), **kwargs)


def t5(
    num_heads: int,
    key_dim: int,
    *,
    buckets: int = 32,
    max_distance: int = 128,
    causal: bool = False,
    **kwargs: Any,
) -> MultiHeadAttention:
    r"""T5's: dot products that are *not* scaled, and a learned number for each head and bucket of distances.

    $$s_{ij} = q_i \cdot k_j + b_{n, \mathrm{bucket}(j - i)}$$

    T5 shares one table among all layers of a stack; here each layer has its own.

    Args:
        num_heads, key_dim: N and H.
        buckets, max_distance: as `limelight.positions.RelativePositionBias` takes them.
        causal: whether a step sees itself and earlier steps alone, as in the decoder; all buckets then serve earlier steps.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`, as in the paper.

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
    score = Dot(scale=1.0) + RelativePositionBias(buckets, max_distance, bidirectional=not causal)
    return heads(num_heads, key_dim, score=score, mask=causal_mask(causal), **kwargs)


def transformer_xl(
    num_heads: int, key_dim: int, *, size: int | None = None, base: float = 10000.0, **kwargs: Any
) -> MultiHeadAttention:
    r"""Transformer-XL's: content and distance, each met by the query and by a learned vector; causal over a memory.

    $$s_{ij} = \frac{1}{\sqrt{H}} \left( (q_i + u_n) \cdot k_j + (q_i + v_n) \cdot W_n r_{i-j} \right), \qquad
    r_d = [\sin(d\,\omega); \cos(d\,\omega)]$$

    Give the memory and the segment, one after the other, as the value: the last query stands at the last key.

    Args:
        num_heads, key_dim: N and H.
        size: the width of the sinusoids, in the paper that of the model; H when not given.
        base: $\omega_f = \mathrm{base}^{-2f/E}$.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`, as in the paper.

    Returns:
        A layer from query (B, T, D) and value (B, S, D), S the memory and T together, to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> memory, segment = keras.Input((20, 32)), keras.Input((10, 32))
        >>> ll.recipes.transformer_xl(4, 8)(segment, keras.ops.concatenate([memory, segment], 1)).shape
        (None, 10, 32)

    References:
        Dai et al. 2019, arXiv:1901.02860.
    """
    return heads(num_heads, key_dim, score=TransformerXL(size, base), mask=Causal(), **kwargs)


def alibi(num_heads: int, key_dim: int, *, causal: bool = True, **kwargs: Any) -> MultiHeadAttention:
    r"""ALiBi: no positions but a penalty that grows with the distance, steeper in some heads than in others.

    $$s_{ij} = \frac{q_i \cdot k_j}{\sqrt{H}} - m_n \lvert i - j \rvert, \qquad m_n = 2^{-8 (n + 1) / N}$$

    Args:
        num_heads, key_dim: N and H. Where N is no power of two, slopes are taken from the powers around it.
        causal: whether a step sees itself and earlier steps alone, as in the paper.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`.

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
    return heads(num_heads, key_dim, score=Dot() + ALiBi(), mask=causal_mask(causal), **kwargs)


def roformer(
    num_heads: int, key_dim: int, *, base: float = 10000.0, causal: bool = False, **kwargs: Any
) -> MultiHeadAttention:
    r"""RoFormer's: queries and keys turned by angles that grow with their position, in neighbouring pairs of features.

    $$s_{ij} = \frac{(R_i q_i) \cdot (R_j k_j)}{\sqrt{H}}$$

    where $R_p$ turns features 2f and 2f + 1 by $p\,\mathrm{base}^{-2f/H}$.

    Args:
        num_heads, key_dim: N and H, which is even.
        base: of the frequencies.
        causal: whether a step sees itself and earlier steps alone.
        kwargs: of `limelight.layers.MultiHeadAttention`; without a bias unless `use_bias=True`.

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
    return heads(num_heads, key_dim, score=Rotary(Dot(), base, interleaved=True), mask=causal_mask(causal), **kwargs)


def bigbird(
    num_heads: int,
    key_dim: int,
    *,
    block: int = 64,
    everywhere: int = 2,
    window: int = 1,
    partners: int = 3,
    seed: int = 0,
    use_bias: bool = True,
    **kwargs: Any,
) -> MultiHeadAttention:
    r"""BigBird's: scaled dot products within blocks that are global, near, or drawn at random.

    $$s_{ij} = \frac{q_i \cdot k_j}{\sqrt{H}}, \qquad m_{ij} = \mathrm{global} \lor \mathrm{near} \lor \mathrm{random}$$

    on the blocks of i and j. Random partners are drawn among earlier blocks and see each other, so that they do not change when a
    sequence grows or is padded; in the paper each block draws its own.

    Args:
        num_heads, key_dim: N and H.
        block: positions in a block.
        everywhere: how many blocks at the start see and are seen by all.
        window: how many blocks to either side a block sees.
        partners: how many blocks a block draws.
        seed: of the draw; layers of a stack should differ.
        use_bias: whether the projections have a bias; they do in the models.
        kwargs: of `limelight.layers.MultiHeadAttention`.

    Returns:
        A layer from query (B, T, D) and value (B, S, D) to (B, T, D).

    Example:
        >>> import keras, limelight as ll
        >>> steps = keras.Input((None, 32))
        >>> ll.recipes.bigbird(4, 8, block=16)(steps, steps).shape
        (None, None, 32)

    References:
        Zaheer et al. 2020, arXiv:2007.14062.
    """
    mask = BigBird(block, everywhere, window, partners, seed)
    return heads(num_heads, key_dim, use_bias=use_bias, mask=mask, **kwargs)
