"""Logs for TensorBoard, written without TensorFlow: the losses of a training, and how each head attends."""

import itertools
import os
import struct
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from limelight import inspection

_COUNTER = itertools.count()


class EventWriter:
    """A file of TensorBoard's events.

    Args:
        folder: The folder of the file, which is created if it is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        number = f"{int(time.time())}.limelight.{os.getpid()}.{next(_COUNTER)}"
        self.path = folder / f"events.out.tfevents.{number}"
        self._append(_field(3, b"brain.Event:2"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars by their tag."""
        scalars = (_field(1, tag.encode()) + b"\x15" + struct.pack("<f", value) for tag, value in values.items())
        summary = b"".join(_field(1, scalar) for scalar in scalars)
        self._append(b"\x10" + _varint(step) + _field(5, summary))

    def _append(self, event: bytes) -> None:
        """Add an event as a record of TensorFlow's: length, checksum, content, checksum."""
        event = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(event))
        with self.path.open("ab") as stream:
            stream.write(length + _checksum(length) + event + _checksum(event))


def describe_heads(model: keras.Model, inputs: Any) -> dict[str, float]:
    """Return for each head of each layer the mean entropy of its rows in nats, and its largest logit, by TensorBoard's tags.

    Only where queries and keys are captured are logits known: not of recurrent cells.
    """
    with warnings.catch_warnings():
        # A model without attention has nothing to describe.
        warnings.simplefilter("ignore", inspection.CaptureWarning)
        maps = inspection.capture(model, inputs)
    values = {}
    for key, attention_map in maps.items():
        statistics = attention_map.statistics(top_k=1, num_blocks=1)
        heads = statistics.entropy.ndim - 2
        entropy, logsumexp, top, mass = (
            np.moveaxis(array, heads, 0).reshape(attention_map.num_heads, -1)
            for array in (statistics.entropy, statistics.logsumexp, statistics.top_weights[..., 0], statistics.mass)
        )
        for head in range(attention_map.num_heads):
            real = mass[head] > 0
            if not real.any():
                continue
            values[f"entropy/{key}/head_{head}"] = float(entropy[head, real].mean())
            logits = logsumexp[head, real] + np.log(np.maximum(top[head, real], 1e-30))
            if np.isfinite(logits).all():
                values[f"largest_logit/{key}/head_{head}"] = float(logits.max())
    return values


def _field(number: int, content: bytes) -> bytes:
    """Return a field of bytes of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _make_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


_TABLE = _make_table()


def _checksum(content: bytes) -> bytes:
    """Return the masked CRC-32C of bytes."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _TABLE[(value ^ byte) & 255] ^ value >> 8
    value ^= 0xFFFFFFFF
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)
