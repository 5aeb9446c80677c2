"""A callback that saves the maps of a few examples after each epoch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from limelight import _files
from limelight.inspection.extractor import AttentionExtractor
from limelight.inspection.token_axes import add_tokens


class AttentionCallback(keras.callbacks.Callback):
    """Save the maps of a few fixed examples after each epoch, in a folder of .npz files.

    The files are `epoch-0000.npz` for the model before training, then one for each epoch, each written atomically, so that an
    interrupted training leaves no broken file. A training that continues (`initial_epoch`) adds to them; one that starts anew
    replaces those of an earlier one.

    Args:
        folder: the folder of the files; created if missing.
        batch: the inputs of the examples. Few and short ones: all their queries and keys are saved for each epoch.
        tokens: as in `limelight.capture`.
        layers: patterns of the layers' paths; all by default.
        every: save maps after every so many epochs. Those of the last epoch are always saved, also if training stops early.

    Raises:
        ValueError: `every` is below 1.

    Example:
        >>> import tempfile, keras, numpy as np, limelight as ll
        >>> steps = keras.Input((3, 4))
        >>> model = keras.Model(steps, ll.layers.AttentionPooling(name="pool")(steps))
        >>> model.compile("sgd", "mse")
        >>> x = np.ones((6, 3, 4), "float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     callback = ll.AttentionCallback(folder, x[:2])
        ...     _ = model.fit(x, x[:, 0], epochs=2, verbose=0, callbacks=[callback])
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
        self._extractor: AttentionExtractor | None = None
        self._num_epochs = self._last_saved = -1

    def on_train_begin(self, logs: Any = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _files.remove_temporary_files(self.folder)
        self._extractor = AttentionExtractor(self.model, self.layers)
        self._num_epochs = self._last_saved = -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._num_epochs >= 0:
            return
        # The first epoch of this training. Files of later epochs are from an earlier training.
        self._num_epochs = epoch
        for path in self.files(self.folder):
            if int(path.stem.removeprefix("epoch-")) > epoch:
                path.unlink()
        if self.model.built and (epoch == 0 or not self._path(epoch).exists()):
            self._save_maps(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._num_epochs = epoch + 1
        is_last = self._num_epochs == self.params.get("epochs") or self.model.stop_training
        if self._num_epochs % self.every == 0 or is_last:
            self._save_maps(self._num_epochs)

    def on_train_end(self, logs: Any = None) -> None:
        # The last epoch was not known to be the last: a callback after this one stopped the training.
        if self._num_epochs > max(self._last_saved, 0):
            self._save_maps(self._num_epochs)

    @staticmethod
    def files(folder: str | os.PathLike[str]) -> list[Path]:
        """Return the files of a folder in the order of their epochs. `AttentionMaps.load` reads them."""
        return sorted(Path(folder).glob("epoch-*.npz"), key=lambda path: int(path.stem.removeprefix("epoch-")))

    def _save_maps(self, epoch: int) -> None:
        # On JAX, reading `self.model` brings the variables up to date.
        if self._extractor is None or self.model is not self._extractor.model:
            raise ValueError("The callback saves maps during `fit`. Pass it as fit(..., callbacks=[callback]).")
        extractor = self._extractor
        _, maps = extractor.predict_on_batch(self.batch)
        maps = add_tokens(
            maps, self.tokens, self.model, (self.batch, {}), lambda inputs: extractor.predict_on_batch(inputs[0])[1]
        )
        maps.save(self._path(epoch))
        self._last_saved = epoch

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04}.npz"
