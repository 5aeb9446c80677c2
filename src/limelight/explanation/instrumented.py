"""A model that is run with other attention weights and with gates on its tokens, compiled once for each shape."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import _keras_private
from limelight.data.batching import plan_batches
from limelight.engine import backend
from limelight.exceptions import AttentionError
from limelight.explanation.subjects import Subject
from limelight.inspection._observed_attention import to_numpy
from limelight.inspection.overrides import OverriddenModel, uniform_weights

# In logarithms.
_SMALLEST = 1e-12
# Examples up to this length are all padded to the longest: compiling for a length takes more time than the padding.
_ONE_LENGTH = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Examples that are run together.

    Args:
        indices: the examples (b,); the batch may have more rows, which repeat the first.
        inputs: the inputs of the model.
        mask: bool (B, T), True at real tokens; (B, sentences, words) of documents.
    """

    indices: np.ndarray
    inputs: Any
    mask: np.ndarray

    @property
    def filled(self) -> np.ndarray:
        """The example of each row."""
        return np.concatenate([self.indices, np.repeat(self.indices[:1], len(self.mask) - len(self.indices))])


class InstrumentedModel:
    """The model of a subject, with the attention that is explained.

    Args:
        subject: the model and its examples.
        layer: the key of the attention in `AttentionMaps`; by default the last one that reads the tokens, pooling first.
        rows: examples in a batch.

    Attributes:
        key: the key of the attention.
        self_attention: the keys of the self-attention over the tokens, in the order in which they run.

    Raises:
        AttentionError: the model has no attention to the tokens.
        ValueError: there is no such attention.
    """

    def __init__(self, subject: Subject, layer: str | None = None, rows: int = 32) -> None:
        self.subject = subject
        self.rows = min(rows, 1 << (len(subject.sequences) - 1).bit_length())
        shortest = min(subject.sequences, key=len)
        length = subject.padded_length(shortest)
        self.overridden = OverriddenModel(subject.model, subject.batch([shortest], length), subject.layers)
        shapes: dict[str, Any] = {each.key: each.shape for each in self.overridden.attentions}
        # The attention to the sentences of documents, and that to the words of each.
        self.levels: tuple[str, str] | None = None
        if subject.is_document:
            self._find_levels(shapes, length, layer)
        readers = [key for key, shape in shapes.items() if len(shape) == 4 and shape[-1] == length]
        self.self_attention = [key for key in readers if shapes[key][-2] == length and length > 1]
        poolings = [key for key in readers if shapes[key][-2] == 1]
        self._names = {key: key for key in readers}
        if subject.find_role is not None:
            roles = {key: role for key in readers if (role := subject.find_role(key)) is not None}
            self._names = {key: role.name for key, role in roles.items()}
            self.self_attention = [key for key, role in roles.items() if role.is_self_attention]
            poolings = [key for key, role in roles.items() if not role.is_self_attention]
        readers = list(self._names.values())
        if layer is not None and layer not in readers:
            raise ValueError(
                f"`layer` must be an attention that reads the tokens: {readers}. Received: layer={layer!r}."
            )
        if not readers:
            raise AttentionError(
                "The model must have attention (B, heads, queries, keys) with a key for each token. Received: attention of "
                f"shapes {shapes} for {length} tokens."
            )
        keys = {name: key for key, name in self._names.items()}
        self.key = (poolings or list(self._names))[-1] if layer is None else keys[layer]
        if self.levels is not None:
            self.self_attention = []
        if self.key in self.self_attention:
            # What later layers attend to is not part of this one.
            self.self_attention = self.self_attention[: self.self_attention.index(self.key) + 1]
        # True as long as several weights of an example can share a run of what comes before the attention.
        self.shares_runs = True
        self.num_forward = self.num_backward = 0
        self._functions: dict[Any, Callable[..., Any]] = {}

    @property
    def title(self) -> str:
        """The name of the attention for results."""
        return self._names[self.key] if self.levels is None else " and ".join(self.levels)

    @property
    def layer(self) -> Any:
        """The layer that attends; None if it is not known."""
        return self.overridden.get_attention(self.key).layer

    def get_query(self, num_queries: int) -> int | None:
        """Return the query of the explained output; None if it depends on all of them."""
        query = None if self.key in self.self_attention else self.subject.query
        return None if query is None or query >= num_queries else query

    def batches(self) -> Iterator[Batch]:
        """Yield the examples in batches of equal numbers of rows and few lengths."""
        sequences = self.subject.sequences
        for group in self.subject.group(sequences):
            lengths = np.array([self.padded_length(index) for index in group])
            for planned in plan_batches(lengths, self.rows):
                yield self.make_batch(group[planned.indices], planned.padded_length)

    def padded_length(self, index: int) -> int:
        """Return the length that an example is padded to."""
        length = self.subject.padded_length(self.subject.sequences[index])
        longest = max(map(self.subject.padded_length, self.subject.sequences))
        is_one = self.subject.is_document or (self.subject.pads and longest <= _ONE_LENGTH)
        return longest if is_one else length

    def make_batch(self, indices: np.ndarray, length: int, rows: int | None = None) -> Batch:
        """Return a batch of examples, filled up to a number of rows."""
        missing = max((self.rows if rows is None else rows) - len(indices), 0)
        filled = np.concatenate([indices, np.repeat(indices[:1], missing)])
        sequences = [self.subject.sequences[index] for index in filled]
        return Batch(indices, self.subject.batch(sequences, length), self.subject.mask(sequences, length))

    def observe(self, batch: Batch) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the outputs (B, K), and the tensors of the explained attention and of the self-attention by key.

        Those of the explained attention are its weights (B, N, T, S), bool of this shape where they may be, and if there are any
        its values.
        """
        keys = tuple(dict.fromkeys([*(self.levels or [self.key]), *self.self_attention]))

        def step(data: Any) -> Any:
            outputs, used = self.overridden.run(data["inputs"], dict.fromkeys(keys))
            if self.levels is not None:
                packed = (self._pack([used[key][part] for key in self.levels]) for part in (0, 1))
                return outputs, {self.key: tuple(packed)}
            only_weights = {key: (tensors.weights,) for key, tensors in used.items() if key != self.key}
            return outputs, {**only_weights, self.key: tuple(x for x in used[self.key] if x is not None)}

        outputs, tensors = self._run("observe", step, {"inputs": batch.inputs})
        self.num_forward += len(batch.mask)
        return self._to_output(outputs), tensors

    def predict(self, batch: Batch, weights: Any) -> np.ndarray:
        """Return the outputs (B * m, K) for weights of the explained attention (B * m, N, T, S)."""

        def step(data: Any) -> Any:
            return self.overridden.run(data["inputs"], self._unpack(data["weights"]))[0]

        outputs = self._run_shared("predict", step, batch, {"weights": np.asarray(weights, np.float32)}, len(weights))
        self.num_forward += len(weights)
        return self._to_output(outputs)

    def predict_uniform(self, batch: Batch) -> np.ndarray:
        """Return the outputs (B, K) if the weights of the explained attention are equal."""

        def step(data: Any) -> Any:
            return self.overridden.run(data["inputs"], dict.fromkeys(self.levels or [self.key], uniform_weights))[0]

        self.num_forward += len(batch.mask)
        return self._to_output(self._run("uniform", step, {"inputs": batch.inputs}))

    def gate_gradients(self, batch: Batch, select: np.ndarray, gate: float = 1.0, weights: Any = None) -> np.ndarray:
        r"""Return the derivative (B, T) of the selected output by a gate on each token, $x'_t = b + g_t (x_t - b)$.

        At $g = 1$ and with $b = 0$ this is gradient times input, summed over the features of a token: $x_t \cdot dy / dx_t$.

        Args:
            batch: the examples.
            select: (B, K), the weight of each output in the sum that is derived.
            gate: the value of all gates.
            weights: weights of the explained attention that are held fixed (B, N, T, S); by default they depend on the tokens.
        """
        is_fixed = weights is not None

        def step(data: Any) -> Any:
            def total(tensors: list[Any]) -> Any:
                inputs, embed = self._apply_gates(data["inputs"], tensors[0], data["baseline"])
                replacements = self._unpack(data["weights"]) if is_fixed else {}
                outputs, _ = self.overridden.run(inputs, replacements, embed)
                return ops.sum(self._as_rows(outputs) * data["select"])

            return backend.active().gradients(total, [data["gates"]])[0]

        data = {
            "inputs": batch.inputs,
            # Padding stays as it is: a layer may tell it by its values.
            "gates": np.where(batch.mask, gate, 1.0).astype(np.float32),
            "select": self._select(select),
            "baseline": self._baseline(batch),
            **({"weights": np.asarray(weights, np.float32)} if is_fixed else {}),
        }
        self.num_backward += len(batch.mask)
        return to_numpy(self._run(f"gates {is_fixed}", step, data)).astype(np.float64)

    def weight_gradients(self, batch: Batch, select: np.ndarray, weights: Any) -> np.ndarray:
        """Return the derivative (B, N, T, S) of the selected output by the weights of the explained attention."""

        def step(data: Any) -> Any:
            def total(tensors: list[Any]) -> Any:
                outputs, _ = self.overridden.run(data["inputs"], self._unpack(tensors[0]))
                return ops.sum(self._as_rows(outputs) * data["select"])

            return backend.active().gradients(total, [data["weights"]])[0]

        data = {"inputs": batch.inputs, "select": self._select(select), "weights": np.asarray(weights, np.float32)}
        self.num_backward += len(batch.mask)
        return to_numpy(self._run("weights", step, data)).astype(np.float64)

    def adversarial_gradients(
        self,
        batch: Batch,
        logits: np.ndarray,
        own: np.ndarray,
        permitted: np.ndarray,
        outputs: np.ndarray,
        limit: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the gradient of the adversarial loss by the logits of weights, the weights, and the outputs for them.

        Args:
            batch: the examples.
            logits: (B * m, N, T, S); the softmax of them are the weights where they may change.
            own: the model's own weights (B * m, N, T, S).
            permitted: where they may change (B * m, N, T, S).
            outputs: the model's own outputs (B * m, K).
            limit: how far the outputs may move.
        """

        def build_weights(data: Any, logits: Any) -> Any:
            permitted, own = data["permitted"], data["own"]
            changed = ops.softmax(ops.where(permitted, logits, -1e9), axis=-1)
            total = ops.sum(ops.where(permitted, own, 0.0), axis=-1, keepdims=True)
            return ops.where(permitted, total * changed, own)

        def step(data: Any) -> Any:
            def loss(tensors: list[Any]) -> Any:
                weights = build_weights(data, tensors[0])
                outputs, _ = self.overridden.run(data["inputs"], self._unpack(weights))
                moved = self._as_rows(outputs) - data["outputs"]
                # The share of probability that moves, or the mean movement of values.
                moved = ops.sum(ops.abs(moved), axis=-1) * data["factor"]
                changes = ops.cast(ops.any(data["permitted"], axis=-1), "float32")
                divergence = ops.sum(_jensen_shannon(data["own"], weights) * changes, axis=(1, 2))
                divergence = divergence / ops.maximum(ops.sum(changes, axis=(1, 2)), 1.0)
                return ops.sum(20.0 * ops.relu(moved - 0.9 * data["limit"]) - divergence)

            gradient = backend.active().gradients(loss, [data["logits"]])[0]
            weights = build_weights(data, data["logits"])
            return gradient, weights, self.overridden.run(data["inputs"], self._unpack(weights))[0]

        raw = outputs if self.subject.output == "values" or not self._is_sigmoid else outputs[:, 1:]
        is_half = self.subject.output == "probabilities" and not self._is_sigmoid
        data = {
            "logits": np.asarray(logits, np.float32),
            "own": np.asarray(own, np.float32),
            "permitted": permitted,
            "outputs": raw.astype(np.float32),
            "factor": np.float32(0.5 if is_half else 1 / raw.shape[1]),
            "limit": np.float32(limit),
        }
        gradient, weights, moved = self._run_shared("adversarial", step, batch, data, len(logits))
        self.num_backward += len(logits)
        return to_numpy(gradient), to_numpy(weights), self._to_output(moved)

    def _find_levels(self, shapes: dict[str, Any], sentences: int, layer: str | None) -> None:
        """Find the attention to the sentences and to the words of documents."""
        if layer is not None:
            raise ValueError(
                f"`layer` must be left out for documents, whose two levels belong together. Received: {layer!r}."
            )
        outer = [key for key, shape in shapes.items() if shape == (1, 1, 1, sentences)]
        inner = [key for key, shape in shapes.items() if shape == (1, sentences, 1, 1, self.subject.max_words)]
        if outer and inner:
            self.levels = (outer[-1], inner[0])

    def _pack(self, levels: Any) -> Any:
        """Return the weights of both levels of documents (B, 1, S + 1, M): a row for each sentence, then one for all."""
        outer, inner = levels
        sentences, words = int(outer.shape[-1]), int(inner.shape[-1])
        width = max(sentences, words)
        rows = ops.pad(ops.reshape(inner, (-1, sentences, words)), [[0, 0], [0, 0], [0, width - words]])
        last = ops.pad(outer[:, 0], [[0, 0], [0, 0], [0, width - sentences]])
        return ops.expand_dims(ops.concatenate([rows, last], axis=1), 1)

    def _unpack(self, packed: Any) -> dict[str, Any]:
        """Return the weights of each key from those of the explained attention, which documents have packed."""
        if self.levels is None:
            return {self.key: packed}
        sentences, words = int(packed.shape[2]) - 1, self.subject.max_words
        inner = ops.reshape(packed[:, 0, :sentences, :words], (-1, sentences, 1, 1, words))
        return dict(zip(self.levels, (packed[:, :, sentences:, :sentences], inner), strict=True))

    @functools.cached_property
    def _is_sigmoid(self) -> bool:
        has_one_output = all(size == 1 for size in self.subject.model.output_shape[1:])
        return has_one_output and self.subject.output == "probabilities"

    def _select(self, select: np.ndarray) -> np.ndarray:
        """Return the weights of the model's own outputs: a sigmoid p has the two classes 1 - p and p."""
        select = np.asarray(select, np.float32)
        return select[:, 1:] - select[:, :1] if self._is_sigmoid else select

    def _to_output(self, outputs: Any) -> np.ndarray:
        outputs = to_numpy(outputs)
        return self.subject.to_output(outputs.reshape(len(outputs), -1))

    @staticmethod
    def _as_rows(outputs: Any) -> Any:
        return ops.reshape(ops.cast(outputs, "float32"), (outputs.shape[0], -1))

    def _baseline(self, batch: Batch) -> np.ndarray:
        """Return what the tokens are without their gates: (C,), or (B, 1, C)."""
        baseline = self.subject.baseline
        if baseline is None:
            return np.zeros(1, np.float32)
        return np.asarray(baseline if baseline.ndim == 1 else baseline[batch.filled], np.float32)

    def _apply_gates(self, inputs: Any, gates: Any, baseline: Any) -> tuple[Any, Any]:
        """Return the inputs with gates on their steps, or what puts gates on the first embedding of the ids."""
        if not self.subject.has_ids:

            def gate_leaf(leaf: Any) -> Any:
                if len(leaf.shape) != 3:
                    return leaf
                leaf = ops.convert_to_tensor(leaf)
                return baseline + ops.expand_dims(ops.cast(gates, leaf.dtype), -1) * (leaf - baseline)

            if self.subject.context is not None:
                return {**inputs, self.subject.input_name: gate_leaf(inputs[self.subject.input_name])}, None
            return keras.tree.map_structure(gate_leaf, inputs), None
        embedded = []

        def embed(ids: Any, vectors: Any) -> Any:
            if embedded or tuple(ids.shape) != tuple(gates.shape):
                return vectors
            embedded.append(True)
            return vectors * ops.expand_dims(ops.cast(gates, vectors.dtype), -1)

        return inputs, embed

    def _run_shared(self, name: str, step: Any, batch: Batch, data: dict[str, Any], rows: int) -> Any:
        """Run a step for several weights of each example: in one run of what comes before, if the model permits it."""
        if self.shares_runs and rows > len(batch.mask):
            try:
                return self._run(name, step, {"inputs": batch.inputs, **data})
            except Exception:  # Each backend raises its own: what comes before the attention is used after it too.
                self.shares_runs = False
        times = rows // len(batch.mask)
        inputs = keras.tree.map_structure(lambda x: np.repeat(x, times, axis=0), batch.inputs)
        return self._run(name, step, {"inputs": inputs, **data})

    def _run(self, name: str, step: Callable[[Any], Any], data: Any) -> Any:
        """Run a step on data, compiled as the model is, with the values of the model's state and without changing them."""
        model, active = self.subject.model, backend.active()
        jit = None if getattr(model, "run_eagerly", False) else bool(getattr(model, "jit_compile", True))
        shapes = tuple((np.shape(leaf), np.asarray(leaf).dtype.str) for leaf in keras.tree.flatten(data))

        def run(values: list[Any], data: Any) -> Any:
            data = keras.tree.map_structure(ops.convert_to_tensor, data)
            return backend.run_stateless(step, active.state_variables(model), values, data)[0]

        # One function for each shape: none is compiled for an unknown one.
        key = (name, jit, tuple(data), shapes)
        if key not in self._functions:
            self._functions[key] = run if jit is None else active.compile(run, jit=jit)
        values = [variable.value for variable in active.state_variables(model)]
        with active.no_gradient():
            return self._functions[key](values, data)


def get_projection(layer: Any, num_heads: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the kernel (N, V, E) and the bias (E,) of the projection that merges the heads of a layer; None without one."""
    dense = _keras_private.get_output_dense(layer)
    kernel = None if dense is None else to_numpy(dense.kernel)
    if kernel is None or kernel.ndim != 3 or kernel.shape[:2] != (num_heads, size):
        return None
    bias = getattr(dense, "bias", None)
    return kernel, np.zeros(kernel.shape[-1]) if bias is None else to_numpy(bias)


def _jensen_shannon(first: Any, second: Any) -> Any:
    """Compute the divergence of distributions over the last axis, in nats."""

    def entropy(weights: Any) -> Any:
        return -ops.sum(weights * ops.log(ops.maximum(weights, _SMALLEST)), axis=-1)

    return entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2
