"""A translator and a forecaster whose weights are set by hand, so that the source position or the lag they read is known."""

import numpy as np

import limelight as ll
from limelight.models.translation import build_translator
from limelight.models.units import Units

WORDS = ("ape", "bee", "cat", "dog", "elk", "fox")
LENGTH = 5
SEASON, PAST, HORIZON = 4, 12, 3
_STEP = 0.05  # of a counter


def make_texts(count, seed=0):
    """Return texts of 5 different words, each text reversed, and the links of their words."""
    random = np.random.default_rng(seed)
    words = [random.permutation(WORDS)[:LENGTH] for _ in range(count)]
    links = [np.array([(LENGTH - 1 - step, step) for step in range(LENGTH)]) for _ in words]
    return [" ".join(each) for each in words], [" ".join(each[::-1]) for each in words], links


def make_reverser():
    """Return a translator that writes its source from the last word to the first.

    The first units of each LSTM hold the word of the step alone, and the last one counts steps: the backward encoder from the end
    of the source, the decoder those that it wrote. The attention looks where both counts are the same.
    """
    count = len(WORDS)
    units = count + 1
    model = build_translator(4 + count, 4 + count, units=units, embedding_dim=count, dropout=0.0)
    one_hot = np.zeros((4 + count, count))
    one_hot[4:] = np.eye(count)
    for side in ("source", "target"):
        model.get_layer(f"{side}_embedding").set_weights([one_hot])

    def make_cell(width, first_word):
        kernel = np.zeros((width, 4 * units))
        kernel[first_word + np.arange(count), 2 * units + np.arange(count)] = 3.0
        bias = np.zeros((4, units))
        bias[0] = bias[3] = 20.0  # gates of the input and the output
        bias[1] = np.where(np.arange(units) < count, -20.0, 20.0)  # only the counter remembers
        bias[2, -1] = _STEP
        return [kernel, np.zeros((units, 4 * units)), bias.ravel()]

    # The encoder's weights are those of the forward and of the backward LSTM.
    model.get_layer("encoder").set_weights([*make_cell(count, 0), *make_cell(count, 0)])
    for name in ("initial_hidden", "initial_carry"):
        layer = model.get_layer(name)
        layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    decoder = model.get_layer("decoder")
    values = dict(zip(("kernel", "recurrent", "bias"), make_cell(count + 2 * units, count), strict=True))
    query, key, readout = np.zeros((units, units)), np.zeros((2 * units, units)), np.zeros((units, 1))
    offset = np.zeros(units)
    # A bump where the counts are equal: tanh(x + c) - tanh(x - c).
    query[-1, :2], key[-1, :2], readout[:2, 0] = -60.0, 60.0, (20.0, -20.0)
    # The last word has the count 1 when the decoder has written none.
    offset[:2] = -60.0 * _STEP + np.array([1.0, -1.0])
    for weight in decoder.weights:
        name = weight.path
        if "query" in name:
            weight.assign(query)
        elif "key" in name:
            weight.assign(key)
        elif "readout" in name:
            weight.assign(readout.reshape(weight.shape))
        elif "recurrent" in name:
            weight.assign(values["recurrent"])
        elif weight.shape == values["bias"].shape:
            weight.assign(values["bias"])
        elif weight.shape == values["kernel"].shape:
            weight.assign(values["kernel"])
        else:
            weight.assign(offset.reshape(weight.shape))
    output = np.zeros((units, 4 + count))
    output[np.arange(count), 4 + np.arange(count)] = 12.0
    model.get_layer("probabilities").set_weights([output, np.zeros(4 + count)])
    translator = ll.models.Translator(units=units, embedding_dim=count, max_length=LENGTH, beam=2, verbose=False)
    vocabulary = Units("word", list(WORDS))
    return translator.restore(vocabulary, vocabulary, model, {})


def make_series(count, seed=0):
    """Return random series (T,) of positive values."""
    return [5 + np.random.default_rng(seed + index).normal(size=40) for index in range(count)]


def make_copier(series):
    """Return a forecaster whose network adds nothing: each forecast is the value a season before."""
    model = ll.models.Forecaster(
        horizon=HORIZON, past=PAST, season=SEASON, units=4, epochs=1, batch_size=8, training={"epoch_steps": 1},
        random_state=0, verbose=False,
    )  # fmt: skip
    model.fit(series)
    outputs = model.model_.get_layer("outputs")
    outputs.set_weights([np.zeros(weight.shape) for weight in outputs.weights])
    return model
