"""The override point of Keras's multi-head attention: subclasses that compute the attention of projected heads themselves."""

from typing import Any

from keras import ops

from limelight import masks
from limelight.engine.call import make_call
from limelight.layers.attending import Attending
from limelight.layers.masking import explicit
from limelight.layers.projections import Layout


class Overridable(Attending):
    """A multi-head layer whose subclasses may override `_compute_attention`, as those of Keras's layer may. Abstract."""

    _axes: tuple[int, ...]

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> tuple[Any, Any]:
        """The attention of projected heads.

        Args:
            query, key, value: (B, ..., N, H) and (B, ..., K, H).
            attention_mask: as the call takes it.
            training, return_attention_scores, use_causal_mask: as the call takes them.

        Returns:
            The output (B, ..., N, V), and the weights or None.
        """
        layout = Layout.of(query[..., 0, :], value[..., 0, :], self._axes)
        given = None if attention_mask is None else explicit(layout.mask(attention_mask), layout.queries, layout.keys)
        output, weights = self.answer(
            layout.heads_first(query),
            layout.heads_first(key),
            layout.heads_first(value),
            mask=masks.both(given, masks.Causal() if use_causal_mask else None),
            weights=return_attention_scores,
            training=training,
            heads=True,
        )
        return layout.heads_last(output), None if weights is None else layout.weights(weights)

    @property
    def overridden(self) -> bool:
        """Whether a subclass computes the attention itself."""
        return type(self)._compute_attention is not Overridable._compute_attention

    def dense(self, mask: masks.Mask | None, query: Any, key: Any) -> Any:
        """A call's mask as the one array that an override gets: (B, 1, T, S), or None.

        Args:
            mask: what the call forbids.
            query, key: (B, N, T, H) and (B, K, S, H).
        """
        both = masks.both(self.mask, mask)
        if both is None:
            return None
        call = make_call(query, key)
        block = call.block
        return ops.broadcast_to(both(block), (block.batch.length, 1, block.rows.length, block.columns.length))
