"""Additive attention without projections, in place of Keras's."""

import dataclasses
from typing import Any

from keras import ops

from limelight import scores
from limelight.core.block import Block
from limelight.core.component import register
from limelight.core.precision import upcast
from limelight.layers.attention import Attention
from limelight.scores.networks import Readout


@register
class AdditiveAttention(Attention):
    r"""Attention by the score $s_{ij} = c^\top \tanh(q_i + k_j)$, in place of `keras.layers.AdditiveAttention`.

    Nothing is projected. What Bahdanau et al. have, with projections of query and key, is `limelight.recipes.bahdanau`.

    Args:
        use_scale: whether the vector c is learned; all ones if not. Keras's argument.
        dropout, seed: of the weights.
        mask, normalizer, attention_regularizer: as every attention layer has them.

    Call arguments and returns: those of `Attention`.

    Example:
        >>> import keras, limelight as ll
        >>> decoder, encoder = keras.Input((5, 16)), keras.Input((None, 16))
        >>> ll.layers.AdditiveAttention()([decoder, encoder]).shape
        (None, 5, 16)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473.
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(use_scale=use_scale, dropout=dropout, seed=seed, **kwargs)

    def build(self, input_shape: Any) -> None:
        self._validate(input_shape)
        if self.use_scale:
            shape = (input_shape[0][-1],)
            self.scale = self.add_weight(name="scale", shape=shape, initializer="glorot_uniform")

    def _score(self, width: int) -> scores.Score:
        return Summed(None if self.scale is None else ops.convert_to_tensor(self.scale), width)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("score", "score_mode")}


@dataclasses.dataclass(frozen=True, eq=False)
class Summed(scores.Score):
    r"""$s_{ij} = c^\top \tanh(q_i + k_j)$ with a vector of the layer's, or ones."""

    vector: Any
    width: int

    @property
    def cost(self) -> int:
        return self.width

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        query, key, readout = self.prepare(query, key, block=block)
        return readout(query, key, block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, scores.Score]:
        query, key = upcast(query), upcast(key)
        vector = ops.ones((query.shape[-1],), dtype=query.dtype) if self.vector is None else upcast(self.vector)
        return query, key, Readout(ops.expand_dims(vector, -1))
