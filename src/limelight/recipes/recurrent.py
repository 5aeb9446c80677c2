"""Recipes of recurrent models: the attention of their decoders and classifiers."""

from typing import Any

import keras

from limelight.layers import Attention, HierarchicalPooling
from limelight.positions import GaussianWindow
from limelight.scores import Additive, Bilinear, Dot


def bahdanau(units: int, **kwargs: Any) -> Attention:
    r"""Attention of the first translation model that had one: a small network scores each pair.

    $$s_{ij} = v^\top \tanh(W q_i + U k_j + b), \qquad y_i = \sum_j \mathrm{softmax}_j(s_{ij})\, k_j$$

    The paper has no $b$; it starts at zero. To attend at every step of a decoder, pass the score to
    `limelight.layers.AttentionCell`.

    Args:
        units: Width of the hidden layer, the length of $v$; 1000 in the paper.
        kwargs: Arguments of `limelight.layers.Attention`.

    Returns:
        A layer from query (..., T, H) and value (..., S, G), of sizes that may differ, to (..., T, G).

    Example:
        >>> import keras, limelight as ll
        >>> decoder, encoder = keras.Input((None, 12)), keras.Input((None, 8))
        >>> ll.recipes.bahdanau(units=16)(decoder, encoder).shape
        (None, None, 8)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473.
    """
    return Attention(score=Additive(units), **kwargs)


def luong(kind: str = "dot", *, units: int = 64, width: float = 10.0, **kwargs: Any) -> Attention:
    r"""Attention with one of the scores that Luong et al. compare.

    $$s_{ij} = q_i \cdot k_j \;\text{(dot)}, \quad q_i^\top W k_j \;\text{(general)}, \quad
    v^\top \tanh(W [q_i; k_j]) \;\text{(concat)}$$

    "local" is the general score and the paper's local-p: $p_i = S\,\sigma(v^\top \tanh(W q_i))$ is the position that query i
    attends to, and a Gaussian around it, of standard deviation `width` / 2, multiplies the weights:

    $$w_{ij} \propto e^{s_{ij}} \exp\!\left(-\frac{(j - p_i)^2}{2 (D / 2)^2}\right)$$

    In the paper the Gaussian multiplies after the softmax, so that weights do not sum to one, and keys farther than D are cut
    off; here the weights are normalised after it, and those of far keys approach zero. "concat" has a bias that starts at zero.

    Args:
        kind: "dot", "general", "concat" or "local".
        units: Width of the hidden layer of "concat".
        width: D of "local".
        kwargs: Arguments of `limelight.layers.Attention`.

    Returns:
        A layer from query (..., T, H) and value (..., S, G) to (..., T, G); H = G for "dot".

    Raises:
        ValueError: `kind` is unknown.

    Example:
        >>> import keras, limelight as ll
        >>> decoder, encoder = keras.Input((None, 12)), keras.Input((None, 8))
        >>> ll.recipes.luong("general")(decoder, encoder).shape
        (None, None, 8)

    References:
        Luong et al. 2015, arXiv:1508.04025.
    """
    if kind not in ("dot", "general", "concat", "local"):
        raise ValueError(f'`kind` must be "dot", "general", "concat" or "local". Received: kind={kind!r}.')
    score = {"dot": Dot(scale=1.0), "concat": Additive(units), "general": Bilinear()}.get(kind)
    return Attention(score=Bilinear() + GaussianWindow(width) if score is None else score, **kwargs)


def han(units: int = 50, **kwargs: Any) -> HierarchicalPooling:
    r"""Pooling of a hierarchical attention network: words and sentences are each encoded in both directions and pooled.

    $$h_t = [\overrightarrow{\mathrm{GRU}}(x_t); \overleftarrow{\mathrm{GRU}}(x_t)], \qquad
    u_t = \tanh(W h_t + b), \qquad y = \sum_t \mathrm{softmax}_t(u_t^\top c)\, h_t$$

    for the words of each sentence, and likewise for the sentences.

    Args:
        units: Width of each GRU; $u$ and the context $c$ are twice as wide, 100 in the paper.
        kwargs: Arguments of `limelight.layers.HierarchicalPooling`.

    Returns:
        A layer from words (B, S, W, D) to a vector (B, 2 * units), and the weights of words and of sentences on request.

    Example:
        >>> import keras, limelight as ll
        >>> document = keras.Input((None, None, 16))
        >>> vector, words, sentences = ll.recipes.han(5)(document, return_attention_scores=True)
        >>> vector.shape, words.shape, sentences.shape
        ((None, 10), (None, None, None), (None, None))

    References:
        Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", NAACL.
    """
    encoders = {
        name: keras.layers.Bidirectional(keras.layers.GRU(units, return_sequences=True), name=name)
        for name in ("word_encoder", "sentence_encoder")
    }
    return HierarchicalPooling(2 * units, **encoders, **kwargs)
