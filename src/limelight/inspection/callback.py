"""Maps of a few examples after each epoch: how attention comes about."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from limelight import _files
from limelight.inspection import batching
from limelight.inspection.extractor import AttentionExtractor


class AttentionCallback(keras.callbacks.Callback):
    """Keeps the maps of a few fixed examples after each epoch, in a folder of .npz files.

    The files are `epoch-0000.npz` for the model before training, then one for each epoch, each written whole or not at all, so
    that an interrupted training leaves no broken file. A training that goes on (`initial_epoch`) adds to them; one from the
    start takes the place of what an earlier one left.

    Args:
        folder: where the files go; made where it is missing.
        batch: the examples: what the model takes. Few and short: all their queries and keys are kept for each epoch.
        tokens: as `limelight.capture` takes them.
        layers: patterns of the layers' paths; all where None.
        every: after how many epochs maps are kept. The last epoch's always are, also where training stops early.

    Raises:
        ValueError: `every` is not positive.

    Example:
        >>> import tempfile, keras, numpy as np, limelight as ll
        >>> steps = keras.Input((3, 4))
        >>> model = keras.Model(steps, ll.layers.AttentionPooling(name="pool")(steps))
        >>> model.compile("sgd", "mse")
        >>> x = np.ones((6, 3, 4), "float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = ll.AttentionCallback(folder, x[:2])
        ...     _ = model.fit(x, x[:, 0], epochs=2, verbose=0, callbacks=[kept])
        ...     [path.name for path in ll.AttentionCallback.files(folder)]
        ['epoch-0000.npz', 'epoch-0001.npz', 'epoch-0002.npz']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        batch: Any,
        tokens: Any = None,
        layers: str | Sequence[str] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}.")
        self.folder, self.batch, self.tokens = Path(folder), batch, tokens
        self.layers, self.every = layers, every
        self._probe: AttentionExtractor | None = None
        self._seen = self._kept = -1

    def on_train_begin(self, logs: Any = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _files.sweep(self.folder)
        self._probe = AttentionExtractor(self.model, self.layers)
        self._seen = self._kept = -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._seen >= 0:
            return
        # The first: the model is as so many epochs have left it, and what comes after them is another training's.
        self._seen = epoch
        for path in self.files(self.folder):
            if int(path.stem.removeprefix("epoch-")) > epoch:
                path.unlink()
        if self.model.built and (epoch == 0 or not self._path(epoch).exists()):
            self._keep(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._seen = epoch + 1
        is_last = self._seen == self.params.get("epochs") or self.model.stop_training
        if self._seen % self.every == 0 or is_last:
            self._keep(self._seen)

    def on_train_end(self, logs: Any = None) -> None:
        # A callback that comes after this one has stopped the training.
        if self._seen > max(self._kept, 0):
            self._keep(self._seen)

    @staticmethod
    def files(folder: str | os.PathLike[str]) -> list[Path]:
        """The files of a folder in the order of their epochs. `AttentionMaps.load` reads them."""
        return sorted(Path(folder).glob("epoch-*.npz"), key=lambda path: int(path.stem.removeprefix("epoch-")))

    def _keep(self, epoch: int) -> None:
        # On JAX the variables are up to date once the callback's model is asked for.
        if self._probe is None or self.model is not self._probe.model:
            raise ValueError("The callback keeps maps during `fit`. Pass it as fit(..., callbacks=[callback]).")
        _, maps = self._probe.predict_on_batch(self.batch)
        if self.tokens is not None:
            maps = maps.with_tokens(self.tokens, batching.padded_length(self.batch, self.tokens))
        maps.save(self._path(epoch))
        self._kept = epoch

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04}.npz"
