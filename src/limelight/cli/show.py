"""The command `limelight show`: the attention of any .keras file on an input, as a page that a browser opens."""

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import re
import sys
import tempfile
import unicodedata
import warnings
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limelight._formatting import format_count
from limelight._progress import Interruption, make_printable
from limelight.cli import prediction
from limelight.exceptions import DataError, UsageError

_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
# The colors of images in words; other modes have the name that Pillow gives them.
_MODES = {"L": "grayscale", "RGB": "color", "RGBA": "color with transparency", "P": "a palette", "1": "black and white"}
# Maps of longer inputs are computed inside the model, as statistics.
_MAX_EXACT_LENGTH = 4096
# The classes of characters that leave the direction of what stands beside them as it is.
_LEFT_TO_RIGHT = frozenset(("", "L", "EN", "ES", "ET", "CS", "NSM", "BN", "B", "S", "WS", "ON"))
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"
_MAX_INPUT_BYTES = 4 << 30


@dataclasses.dataclass(frozen=True)
class Capture:
    """The inputs that a model read, and the attention that was captured.

    Args:
        model: A line about the model.
        inputs: A line about each input.
        maps: The attention maps.
        missing: What was not captured, and why: a sentence each.
        view: Further arguments of `report.View`: rankings, the values of series, the predictions.
    """

    model: str
    inputs: Sequence[str]
    maps: Any
    missing: Sequence[str] = ()
    view: dict[str, Any] = dataclasses.field(default_factory=dict)


def check(arguments: argparse.Namespace) -> None:
    """Check the options; all of them can be used together."""


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Capture the attention, write the page, say what was found, and open the page."""
    from limelight import report
    from limelight.models.files import holds_estimator

    if arguments.examples < 1:
        raise UsageError(f"--examples must be at least 1. Received: {arguments.examples}.")
    for module in arguments.modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise UsageError(f"--import {module} failed: {_first_line(error)}") from error
    is_estimator = holds_estimator(arguments.model)
    capture = _capture_estimator(arguments) if is_estimator else _capture_model(arguments)
    found = _list_maps(capture.maps)
    _print(f"Model: {capture.model}")
    for line in capture.inputs:
        _print(f"Input: {line}")
    if found:
        _print(f"Found: {_count(len(found), 'attention map')}")
    for line in found:
        _print(f"  {line}")
    for sentence in capture.missing:
        _print(f"Not found: {sentence}")
    if not found:
        raise DataError(f"No attention was captured, so there is nothing to show in {arguments.model}.")
    path = Path(arguments.out) if arguments.out else Path(tempfile.mkdtemp(prefix="limelight-")) / "attention.html"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report.write(
            path,
            report.View(capture.maps, **capture.view),
            title=f"What {Path(arguments.model).name} reads",
            facts={
                "Model": capture.model,
                "Input": "; ".join(capture.inputs),
                "Found": "; ".join(re.sub(" {2,}", ": ", line, count=1) for line in found)
                if len(found) <= 4
                else _count(len(found), "attention map"),
            },
            notes=[f"Not found: {sentence}" for sentence in capture.missing],
        )
    for warning in caught:
        print(make_printable(str(warning.message)), file=sys.stderr)
    _print(f"Page: {path.resolve()}")
    if not arguments.out and _has_display():
        webbrowser.open(path.resolve().as_uri())


def _print(line: str) -> None:
    # Terminals show marks of direction as characters, or not at all.
    print(make_printable(line.translate({ord(_ISOLATE): None, ord(_END_ISOLATE): None})), flush=True)


def _isolate(text: str) -> str:
    """Return a text that leaves what stands beside it in a sentence where it is, if it is written from right to left."""
    is_isolated = any(unicodedata.bidirectional(character) not in _LEFT_TO_RIGHT for character in text)
    return f"{_ISOLATE}{text}{_END_ISOLATE}" if is_isolated else text


def _list_maps(maps: Any) -> list[str]:
    """Return a line about each map."""
    width = max(map(len, maps), default=0)
    lines = []
    for name, each in maps.items():
        queries, keys = each.shape[-2:]
        sizes = f"{_count(each.num_heads, 'head')}, {format_count(queries)} × {format_count(keys)}"
        lines.append(f"{name:{width}}  {each.layer or 'weights'}, {sizes}")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{format_count(number)} {noun}{'' if number == 1 else 's'}"


def _has_display() -> bool:
    """Return True if a browser with a window can be expected; one in the terminal would block the command."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _first_line(error: BaseException) -> str:
    """Return the name and the first sentence or two of an error of another library.

    Keras puts a line about the layer before the message of an error, and marks this as bold.
    """
    lines = [line for line in map(str.strip, re.sub(r"\x1b\[[\d;]*m", "", str(error)).splitlines()) if line]
    text = lines[0] if lines else ""
    wrapped = re.match(r"Exception encountered when calling (.+?)\.?$", text)
    if wrapped and len(lines) > 1:
        text = f"{lines[1]} (in {wrapped[1]})"
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# Models that an estimator saved: raw inputs, with their words.


def _capture_estimator(arguments: argparse.Namespace) -> Capture:
    from limelight.models import load

    estimator = load(arguments.model)
    if len(arguments.inputs) != 1:
        raise UsageError(f"A {type(estimator).__name__} takes one INPUT. Received: {len(arguments.inputs)}.")
    (source,) = arguments.inputs
    if arguments.tokens:
        raise UsageError("--tokens is for models without a vocabulary of their own. Leave it out.")
    if arguments.layout:
        raise UsageError("--layout is for models of other libraries: the axes of an estimator are known. Leave it out.")
    description = f"{Path(arguments.model).name}, {type(estimator).__name__}, {_count_parameters(estimator.model_)}"
    view: dict[str, Any] = {}
    if hasattr(estimator, "horizon"):
        panel = prediction.read_panel(source, estimator)
        maps, inputs = _ask(estimator, panel), f"{_isolate(source)}, {len(panel.ids)} series"
        return Capture(description, [inputs], maps)
    if hasattr(estimator, "n_channels_in_"):
        _, given, _ = prediction.read_series(source)
        noun = "series"
    else:
        _, given, _ = prediction.read_texts(source, arguments.text, is_translator=hasattr(estimator, "beam"))
        noun = "text"
    examples = list(itertools.islice(given, arguments.examples))
    more = next(given, None) is not None
    if not examples:
        raise DataError(f"{source!r} must hold at least one {noun}. Received: none.")
    with prediction.ignore_cut():
        maps = _ask(estimator, examples)
        view["labels"] = _label_estimator(estimator, examples)
    if noun == "series":
        view["series"] = examples
    described = _describe_examples(source, len(examples), more, noun)
    if cut := estimator.count_cut(examples):
        described += f"; {prediction.describe_cut(estimator, cut, len(examples))}"
    return Capture(description, [described], maps, view=view)


def _ask(estimator: Any, data: Any) -> Any:
    try:
        return estimator.attention(data)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from error


def _label_estimator(estimator: Any, examples: list[Any]) -> list[str]:
    """Return the prediction for each example, in words."""
    labels = []
    for entry in prediction.predict(estimator, examples):
        value, probabilities = entry["prediction"], entry.get("probabilities")
        value = f"{value:.4g}" if isinstance(value, float) else str(value)
        labels.append(
            f"Predicted: {_isolate(value)}" + ("" if probabilities is None else f" ({max(probabilities.values()):.0%})")
        )
    return labels


def _describe_examples(source: str, count: int, more: bool, noun: str) -> str:
    name = source if len(source) <= 60 else source[:59] + "…"
    name = _isolate(name)
    if not more:
        return f"{name}, {count} {noun}{'' if count == 1 or noun == 'series' else 's'}"
    return f"{name}, the first {count}; --examples shows more"


def _count_parameters(model: Any) -> str:
    return f"{format_count(model.count_params())} parameters"


# Models of others: arrays.


def _capture_model(arguments: argparse.Namespace) -> Capture:
    from limelight import inspection

    model = _load_model(arguments.model)
    if arguments.layout:
        _check_layout(arguments.layout)
    batch, lines = _read_inputs(model, arguments.inputs, arguments.examples)
    longest = max((max(array.shape[1:2], default=1) for array in _arrays(batch)), default=1)
    store = "statistics" if longest > _MAX_EXACT_LENGTH else "qk"
    _check_ids(model, batch)
    tokens = _read_tokens(arguments.tokens)[: arguments.examples] if arguments.tokens else None
    if tokens is not None:
        _check_tokens(arguments.tokens, tokens, _arrays(batch))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", inspection.CaptureWarning)
        try:
            maps = inspection.capture(
                model,
                batch,
                tokens=tokens,
                store=store,
                num_blocks=512 if store == "statistics" else 64,
                layout=arguments.layout,
            )
        except Exception as error:
            raise DataError(f"{arguments.model!r} cannot run on this input. {_first_line(error)}") from error
    missing = list(dict.fromkeys(str(warning.message) for warning in caught))
    name = f"{Path(arguments.model).name}, {type(model).__name__} {model.name!r}, {_count_parameters(model)}"
    view = {} if store == "statistics" or not maps else _explain(model, batch, maps)
    return Capture(name, lines, maps, missing, view)


def _check_layout(layout: str) -> None:
    from limelight.inspection.layouts import check_layout

    try:
        check_layout(layout, 1)
    except ValueError as error:
        raise UsageError(
            "--layout must have one letter for each axis of the weights, with s for the keys: b batch, n heads, t queries, as in "
            f"btns; any other letter is a further batch axis. Received: {layout}."
        ) from error


def _check_ids(model: Any, batch: Any) -> None:
    """Check the ids that a model looks up in the tables of its embeddings: not every backend does.

    Raises:
        DataError: an id has no row.
    """
    import keras

    from limelight._keras_private import iterate_layers, iterate_model_inputs

    specs = list(getattr(model, "inputs", None) or [])
    arrays = (
        batch if isinstance(batch, dict) else dict(zip((spec.name for spec in specs), _arrays(batch), strict=False))
    )
    embeddings = (
        [layer for layer in iterate_layers(model) if isinstance(layer, keras.layers.Embedding)] if specs else []
    )
    for layer in embeddings:
        for name in {tensor.name: None for tensor in iterate_model_inputs(model, layer)}:
            array = arrays.get(name)
            if array is None or (array.min() >= 0 and array.max() < layer.input_dim):
                continue
            raise DataError(
                f"The ids of input {name!r} must be from 0 to {layer.input_dim - 1}, for the {layer.input_dim} rows of layer "
                f"{layer.name!r}. Received: ids from {array.min()} to {array.max()}. Make them with the vocabulary of the model."
            )


def _check_tokens(source: str, tokens: Sequence[Sequence[str]], arrays: Sequence[Any]) -> None:
    """Check that there are tokens for each example, and not more than an input has positions.

    Raises:
        DataError: they do not fit.
    """
    count = len(arrays[0])
    if len(tokens) != count:
        raise DataError(
            f"{source!r} must have one line or list of tokens for each example. Received: {len(tokens)} for "
            f"{_count(count, 'example')}."
        )
    longest = max((array.shape[1] for array in arrays if array.ndim > 1), default=None)
    for number, each in enumerate(tokens, start=1):
        if longest is not None and len(each) > longest:
            raise DataError(
                f"{source!r} must have at most {_count(longest, 'token')} for an example, one for each position. Received: "
                f"{len(each)} for example {number}."
            )


def _explain(model: Any, batch: Any, attention: Any) -> dict[str, Any]:
    """Return the ranking by gradients and the predictions of a model with one output for each class; else nothing.

    They stand beside the attention, which is shown without them where a model's layers or outputs are of another kind.
    """
    import numpy as np

    from limelight import inspection

    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        outputs = np.asarray(model.predict_on_batch(batch), np.float32)
        if outputs.ndim != 2:
            return {}
        is_distribution = outputs.shape[1] > 1 and np.allclose(outputs.sum(1), 1, atol=1e-3) and (outputs >= 0).all()
        best = outputs.argmax(1)
        labels = [
            f"Predicted: output {index + 1} of {len(row)} ({row[index]:.0%})"
            if is_distribution
            else f"Predicted: {row[0]:.4g}"
            for row, index in zip(outputs, best, strict=True)
            if is_distribution or len(row) == 1
        ]
        view: dict[str, Any] = {"labels": labels} if labels else {}
        if len(best) and (is_distribution or outputs.shape[1] == 1):
            gradients = inspection.gradient_times_attention(model, batch)
            same = [key for key in gradients if key in attention and gradients[key].shape == attention[key].shape]
            maps = {key: gradients[key] for key in same}
            view |= {"rankings": {"gradient × attention": maps}} if maps else {}
        return view
    return {}


def _load_model(path: str) -> Any:
    """Return the Keras model in a .keras file; nothing in the file is run as code.

    Raises:
        DataError: The file cannot be loaded, or holds something else.
    """
    import keras

    # Registers the layers that a file may name.
    import limelight.layers  # noqa: F401
    from limelight.models.keras_files import load_keras_model

    model = load_keras_model(path)
    if not isinstance(model, keras.Layer):
        raise DataError(f"{path!r} must hold a Keras model. Received: {type(model).__name__}.")
    return model


def _arrays(batch: Any) -> list[Any]:
    return list(batch.values()) if isinstance(batch, dict) else batch if isinstance(batch, list) else [batch]


def _read_inputs(model: Any, sources: Sequence[str], limit: int) -> tuple[Any, list[str]]:
    """Return the batch for a model, and a line about each of its inputs.

    Raises:
        DataError: The inputs are not those of the model.
    """
    specs = list(getattr(model, "inputs", None) or [])
    parts: dict[str, Any] = {}
    lines = []
    for index, source in enumerate(sources):
        spec = specs[index] if index < len(specs) else None
        arrays = _read_source(source, spec)
        changes = _describe_image(Path(source), spec) if _is_image(source) else ""
        for name, array in arrays.items():
            target = next((each for each in specs if each.name == name), spec)
            array = _fit(array, target, f"{source}{f' ({name})' if name else ''}")
            _check_finite(array[:limit], source if not name else f"{source} ({name})")
            count, shape = len(array), " × ".join(map(str, array.shape[1:])) or "one number each"
            shown = (
                f"{count} of {shape}" if count <= limit else f"the first {limit} of {format_count(count)}, of {shape}"
            )
            label = _isolate(source if len(source) <= 60 else source[:59] + "…")
            lines.append(f"{label}{f', {name}' if name else ''}: {shown}, {array.dtype}{changes}")
            parts[name or (target.name if target is not None else str(index))] = array[:limit]
    names = [spec.name for spec in specs]
    if specs and set(parts) != set(names):
        wanted = ", ".join(f"{spec.name} {_write_shape(spec)}" for spec in specs)
        raise DataError(
            f"The model takes {len(specs)} inputs: {wanted}. Received: {', '.join(parts)}. Pass a file for each in this order, "
            "or a .npz file with arrays of these names."
        )
    if len({len(array) for array in parts.values()}) > 1:
        counts = ", ".join(f"{name} {len(array)}" for name, array in parts.items())
        raise DataError(f"All inputs must have the same number of examples. Received: {counts}.")
    ordered = [parts[name] for name in names] if specs else list(parts.values())
    if len(ordered) == 1:
        return ordered[0], lines
    # A functional model names its inputs in the structure that it was built with.
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict) or (not specs and any(source.endswith(".npz") for source in sources)):
        return parts, lines
    return ordered, lines


def _read_source(source: str, spec: Any) -> dict[str, Any]:
    """Return the arrays of one INPUT by name; the name is empty if the file has none."""
    import numpy as np

    from limelight.models.keras_files import open_archive

    path = Path(source)
    suffix = path.suffix.lower() if len(source) < 1000 else ""
    try:
        if suffix == ".npy":
            return {"": np.load(path, allow_pickle=False)}
        if suffix == ".npz":
            with open_archive(path) as archive:
                declared = sum(member.file_size for member in archive.infolist())
            if declared > _MAX_INPUT_BYTES:
                raise DataError(
                    f"{source!r} must have at most {_MAX_INPUT_BYTES >> 30} GiB. Received: {declared:,} bytes."
                )
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if not arrays or not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise DataError(f"{source!r} must hold arrays of numpy alone.")
            return {"": next(iter(arrays.values()))} if len(arrays) == 1 else arrays
        if suffix in _IMAGES:
            return {"": _read_image(path, spec)}
    except (DataError, UsageError):
        raise
    except Exception as error:
        # A hostile file may raise anything in zipfile, numpy and Pillow, and declare more than there is memory.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
        raise DataError(f"{source!r} must be a {suffix} file that can be read. {reason}.") from error
    if spec is not None and str(spec.dtype) == "string":
        texts = path.read_text(encoding="utf-8").splitlines() if suffix == ".txt" and path.is_file() else [source]
        array = np.array(texts, dtype=object)
        return {"": array if len(spec.shape) == 1 else array[:, None]}
    wanted = f" It takes {spec.name} {_write_shape(spec)} of {spec.dtype}." if spec is not None else ""
    raise DataError(
        f"The model takes numbers, and its file holds no vocabulary.{wanted} Received: {source[:60]!r}. Save the input as a .npy "
        "or .npz file, and its words in a text file: --tokens FILE."
    )


def _is_image(source: str) -> bool:
    return len(source) < 1000 and Path(source).suffix.lower() in _IMAGES


def _describe_image(path: Path, spec: Any) -> str:
    """Return how `_read_image` changes an image for an input of a model: its size, height first, and its colors."""
    from PIL import Image

    with Image.open(path) as image:
        mode, old = image.mode, (image.height, image.width)
    new, wanted = tuple(spec.shape[1:3]), "L" if spec.shape[3] == 1 else "RGB"
    changes = []
    if None not in new and new != old:
        changes.append(f"resized from {old[0]} × {old[1]}")
    if mode != wanted:
        changes.append(f"converted from {_MODES.get(mode, mode)} to {_MODES[wanted]}")
    return "".join(f", {change}" for change in changes)


def _read_image(path: Path, spec: Any) -> Any:
    import keras
    import numpy as np

    if spec is None or len(spec.shape) != 4:
        wanted = "of another kind" if spec is None else _write_shape(spec)
        raise DataError(f"An image needs a model with an input (batch, height, width, channels). Received: {wanted}.")
    height, width, channels = spec.shape[1:]
    size = (height, width) if height and width else None
    try:
        import PIL

        image = keras.utils.load_img(path, color_mode="grayscale" if channels == 1 else "rgb", target_size=size)
    except ImportError as error:
        raise UsageError("Images need Pillow. Run: pip install pillow") from error
    except PIL.UnidentifiedImageError as error:
        raise DataError(
            f"{str(path)!r} must be an image that Pillow can read. It is none, or of a format unknown to it."
        ) from error
    return np.asarray(image, "float32").reshape(1, image.height, image.width, -1)


def _fit(array: Any, spec: Any, name: str) -> Any:
    """Return an array in the shape and dtype of an input of the model; one example may come without the axis of examples."""
    if array.dtype.kind not in "biufO":
        raise DataError(f"{name} must hold numbers. Received: dtype {array.dtype}.")
    if spec is None:
        return array
    shape, received = tuple(spec.shape), array.shape
    if array.ndim == len(shape) - 1:
        array = array[None]
    fits = array.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape[1:], array.shape[1:], strict=True)
    )
    if fits and not array.size:
        raise DataError(f"{name} must have at least one example, and one position. Received: shape {received}.")
    if not fits:
        raise DataError(f"{name} must have shape {_write_shape(spec)}. Received: {received}.")
    if array.dtype.kind == "O":
        return array
    wants_integers = "int" in str(spec.dtype)
    if wants_integers and array.dtype.kind == "f" and (array % 1).any():
        raise DataError(
            f"{name} must hold whole numbers for input {spec.name!r} of {spec.dtype}. Received: {array.dtype}."
        )
    return array.astype(str(spec.dtype))


def _check_finite(array: Any, name: str) -> None:
    """Check the numbers that a model is to read.

    Raises:
        DataError: some are NaN or infinity: so would be the weights.
    """
    import numpy as np

    if array.dtype.kind != "f":
        return
    is_finite = np.isfinite(array)
    if not is_finite.all():
        first = tuple(map(int, np.argwhere(~is_finite)[0]))
        raise DataError(
            f"{name} must hold finite numbers. Received: NaN or infinity in {format_count(int((~is_finite).sum()))} of "
            f"{format_count(array.size)} numbers, the first at {first}. Fill them, or leave out these examples."
        )


def _write_shape(spec: Any) -> str:
    sizes = ["any" if size is None else str(size) for size in spec.shape[1:]]
    return f"(batch{''.join(f', {size}' for size in sizes)})"


def _read_tokens(source: str) -> list[list[str]]:
    """Return the words of each example: those of each line of a text file, or the lists of a JSON file."""
    path = Path(source)
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json":
        return [line.split() for line in text.splitlines() if line.strip()]
    try:
        tokens = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source!r} must be JSON. {_first_line(error)}.") from error
    tokens = [tokens] if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens) else tokens
    lists: list[Any] = tokens if isinstance(tokens, list) else [None]
    if not all(isinstance(each, list) and all(isinstance(token, str) for token in each) for each in lists):
        raise DataError(f"{source!r} must hold a list of strings for each example.")
    return lists
