"""Recipes of recurrent models: what a decoder or a classifier reads by."""

from typing import Any

import keras

from limelight.layers import Attention, HierarchicalPooling
from limelight.positions import GaussianWindow
from limelight.scores import Additive, Bilinear, Dot


def bahdanau(units: int, **kwargs: Any) -> Attention:
    r"""The attention of the first translation model that had one: a small network scores each pair.

    $$s_{ij} = v^\top \tanh(W q_i + U k_j + b), \qquad y_i = \sum_j \mathrm{softmax}_j(s_{ij})\, k_j$$

    The paper has no $b$; it starts at zero. To read at every step of a decoder, give the score to
    `limelight.layers.AttentionCell`.

    Args:
        units: width of the hidden layer, the length of $v$; 1000 in the paper.
        kwargs: of `limelight.layers.Attention`.

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
    r"""The scores that Luong et al. compare.

    $$s_{ij} = q_i \cdot k_j \;\text{(dot)}, \quad q_i^\top W k_j \;\text{(general)}, \quad
    v^\top \tanh(W [q_i; k_j]) \;\text{(concat)}$$

    "local" is the general score and the paper's local-p: $p_i = S\,\sigma(v^\top \tanh(W q_i))$ says where query i looks, and a
    Gaussian around it, of standard deviation `width` / 2, multiplies the weights:

    $$w_{ij} \propto e^{s_{ij}} \exp\!\left(-\frac{(j - p_i)^2}{2 (D / 2)^2}\right)$$

    In the paper the Gaussian multiplies after the softmax, so that weights do not sum to one, and keys farther than D are cut
    off; here the weights are normalised after it, and far keys fade. "concat" has a bias that starts at zero.

    Args:
        kind: "dot", "general", "concat" or "local".
        units: width of the hidden layer of "concat".
        width: D of "local".
        kwargs: of `limelight.layers.Attention`.

    Returns:
        A layer from query (..., T, H) and value (..., S, G) to (..., T, G); H = G for "dot".

    Raises:
        ValueError: another kind.

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
    r"""A hierarchical attention network: words to sentences to a document, each level read in both directions and pooled.

    $$h_t = [\overrightarrow{\mathrm{GRU}}(x_t); \overleftarrow{\mathrm{GRU}}(x_t)], \qquad
    u_t = \tanh(W h_t + b), \qquad y = \sum_t \mathrm{softmax}_t(u_t^\top c)\, h_t$$

    for the words of each sentence, and once more for the sentences.

    Args:
        units: width of each GRU; $u$ and the context $c$ are twice as wide, 100 in the paper.
        kwargs: of `limelight.layers.HierarchicalPooling`.

    Returns:
        A layer from words (B, S, W, D) to a document (B, 2 * units), and to the weights of words and of sentences on request.

    Example:
        >>> import keras, limelight as ll
        >>> document = keras.Input((None, None, 16))
        >>> vector, words, sentences = ll.recipes.han(5)(document, return_attention_scores=True)
        >>> vector.shape, words.shape, sentences.shape
        ((None, 10), (None, None, None), (None, None))

    References:
        Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", NAACL.
    """
    words, sentences = (
        keras.layers.Bidirectional(keras.layers.GRU(units, return_sequences=True), name=name)
        for name in ("words", "sentences")
    )
    return HierarchicalPooling(2 * units, words=words, sentences=sentences, **kwargs)
