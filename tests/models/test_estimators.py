"""Estimators: raw inputs, scikit-learn's conventions, one file for any backend, and values against the Keras model."""

import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from contracts.representative import full
from limelight import data, models
from limelight.exceptions import DataError
from limelight.explanation import explain
from limelight.models.inputs import CutWarning, as_series, as_texts, collect_pairs
from limelight.models.targets import Classes, Numbers

FAST = {"epochs": 1, "batch_size": 8, "training": {"epoch_steps": 1}, "random_state": 3, "verbose": False}
TEXTS = ["A good film.", "a bad film!", "good", "bad. Not good"] * 6
LABELS = np.array(["pos", "neg", "pos", "neg"] * 6)
SERIES = [np.arange(2 * length, dtype=float).reshape(length, 2) / 9 for length in (5, 3, 7, 4)] * 6


def make(name, **params):
    """Return an estimator that trains in a moment."""
    small = {"units": 4, "dropout": 0.0} | ({} if "Series" in name else {"embedding_dim": 3, "word_dropout": 0.0})
    small |= {} if "Document" in name else {"encoder": "conv"}
    return getattr(models, name)(**{**FAST, **small, **params})


CASES = {
    "TextClassifier": (TEXTS, LABELS),
    "TextRegressor": (TEXTS, np.arange(24) % 4 * 1.5),
    "SeriesClassifier": (SERIES, LABELS == "pos"),
    "SeriesRegressor": (SERIES, np.stack([np.arange(24) % 4 + 10.0, np.arange(24) % 4 * -100.0], 1)),
    "DocumentClassifier": (TEXTS, np.arange(24) % 4 + 5),
}


# Estimators differ in what surrounds one trainer: on the other backends one of each kind of input is trained.
EACH = [name if name in ("TextClassifier", "SeriesRegressor") else full(name) for name in CASES]


class Fitted(dict):
    """Trained estimators by name, each trained when a test first asks for it."""

    def __missing__(self, name):
        self[name] = make(name).fit(*CASES[name])
        return self[name]


@pytest.fixture(scope="module")
def fitted():
    return Fitted()


def predict(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


@pytest.mark.parametrize("name", EACH)
def test_predictions_are_those_of_the_keras_model_on_encoded_inputs(fitted, name):
    estimator, (X, y) = fitted[name], CASES[name]
    examples = estimator.inputs_.encode(X[:4])
    inputs, _, _ = examples.batch(np.arange(4), int(examples.lengths.max()))
    outputs = keras.ops.convert_to_numpy(estimator.model_(inputs, training=False))
    if name.endswith("Classifier"):
        np.testing.assert_allclose(estimator.predict_proba(X[:4]), outputs, rtol=1e-5)
        assert estimator.predict(X[:4]).tolist() == np.unique(y)[outputs.argmax(1)].tolist()
        np.testing.assert_array_equal(estimator.classes_, np.unique(y))
    else:
        expected = outputs * np.std(y, axis=0) + np.mean(y, axis=0)
        np.testing.assert_allclose(estimator.predict(X[:4]), expected.reshape((4, *y.shape[1:])), rtol=1e-5)
    # One input alone, of another padded length, is predicted as among others.
    np.testing.assert_allclose(predict(estimator, X[1:2]), predict(estimator, X[:4])[1:2], rtol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_a_saved_estimator_predicts_the_same_and_holds_a_keras_model(fitted, name, tmp_path):
    estimator, (X, _) = fitted[name], CASES[name]
    estimator.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    assert loaded.get_params() == estimator.get_params()
    np.testing.assert_array_equal(predict(loaded, X[:3]), predict(estimator, X[:3]))
    assert loaded.history_ == estimator.history_
    inner = keras.models.load_model(tmp_path / "model.keras")
    assert inner.count_params() == estimator.model_.count_params()
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.full
@pytest.mark.subprocess
def test_a_saved_estimator_predicts_the_same_on_another_backend(fitted, tmp_path):
    for name in ("TextClassifier", "SeriesRegressor"):
        fitted[name].save(tmp_path / f"{name}.keras")
    code = """
import sys, numpy as np, limelight as ll
folder, texts = sys.argv[1], ["a good film", "unheard of"]
series = [np.arange(6.0).reshape(3, 2), np.ones((9, 2))]
np.savez(f"{folder}/out.npz", text=ll.models.load(f"{folder}/TextClassifier.keras").predict_proba(texts),
         series=ll.models.load(f"{folder}/SeriesRegressor.keras").predict(series))
"""
    backend = "jax" if keras.backend.backend() != "jax" else "torch"
    environment = {"KERAS_BACKEND": backend, "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment, capture_output=True)
    with np.load(tmp_path / "out.npz") as out:
        text, series = out["text"], out["series"]
    expected = fitted["TextClassifier"].predict_proba(["a good film", "unheard of"])
    np.testing.assert_allclose(text, expected, rtol=1e-5)
    expected = fitted["SeriesRegressor"].predict([np.arange(6.0).reshape(3, 2), np.ones((9, 2))])
    np.testing.assert_allclose(series, expected, rtol=1e-5)


@pytest.mark.full
def test_attention_has_the_words_of_each_text(fitted):
    maps = fitted["TextClassifier"].attention(["A good film.", "bad"])
    (attention,) = maps.values()
    assert [list(tokens) for tokens in attention.tokens] == [["A", "good", "film", "."], ["bad"]]
    weights = attention.weights()  # (B, heads, 1, T)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not weights[1, 0, 0, 1:].any()
    documents = fitted["DocumentClassifier"].attention(["A good film. Not bad", "bad!"])
    words, sentences = documents.values()
    assert [list(tokens) for tokens in words.tokens] == [["A", "good", "film", "."], ["Not", "bad"], ["bad", "!"], []]
    assert words.shape == (2, 2, 1, 1, 32)  # documents, sentences, heads, query, words
    np.testing.assert_allclose(sentences.weights()[1, 0, 0], [1, 0], atol=1e-7)
    with pytest.raises(ValueError, match=r"must have attention\. Received: .*pooling='mean'\. Set pooling='attention'"):
        make("TextClassifier", pooling="mean").fit(TEXTS, LABELS).attention(TEXTS[:1])


@pytest.mark.full
def test_the_same_seed_gives_the_same_model():
    first, again, other = (
        make("TextClassifier", random_state=seed, dropout=0.5).fit(TEXTS, LABELS).predict_proba(TEXTS[:3])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


@pytest.mark.trains
@pytest.mark.parametrize("name", CASES)
def test_training_learns(name):
    X, y = CASES[name]
    estimator = make(name, epochs=20, units=8, learning_rate=0.02, training={"epoch_steps": 8}).fit(X, y)
    assert estimator.score(X, y) > 0.95
    metrics = estimator.evaluate(X, y)
    if name.endswith("Classifier"):
        assert metrics["accuracy"].value == pytest.approx(estimator.score(X, y))
    else:
        assert metrics["mse"].value == pytest.approx(((np.asarray(y) - estimator.predict(X)) ** 2).mean())


@pytest.mark.full
def test_weights_take_examples_out_of_the_loss():
    # With weight 0 for one class, the other is all there is to learn.
    weights = (LABELS == "pos").astype(float)
    settings = {"epochs": 8, "learning_rate": 0.05, "validation": 0.0}
    estimator = make("TextClassifier", **settings).fit(TEXTS, LABELS, sample_weight=weights)
    assert estimator.predict_proba(TEXTS)[:, 1].min() > 0.5
    by_class = make("TextClassifier", class_weight={"pos": 1.0, "neg": 0.0}, **settings).fit(TEXTS, LABELS)
    np.testing.assert_allclose(by_class.predict_proba(TEXTS), estimator.predict_proba(TEXTS), rtol=1e-4)


@pytest.mark.full
def test_validation_data_are_weighted_as_the_examples_of_training():
    texts, labels = TEXTS[:8], LABELS[:8]
    sample_weight = np.linspace(0, 2, 8)
    settings = {"epochs": 1, "learning_rate": 0.05, "class_weight": {"pos": 3.0, "neg": 0.5}}
    for weights, validation_data in [
        (np.ones(8), (texts, labels)),
        (sample_weight, (texts, labels, sample_weight)),
    ]:
        estimator = make("TextClassifier", **settings).fit(TEXTS, LABELS, validation_data=validation_data)
        probabilities = estimator.predict_proba(texts)[np.arange(8), (labels == "pos").astype(int)]
        weights = weights * np.where(labels == "pos", 3.0, 0.5)
        (loss,) = estimator.history_["history"]["val_loss"]
        assert loss == pytest.approx(-np.average(np.log(probabilities), weights=weights), rel=1e-5)


@pytest.mark.backend_free
def test_wrong_validation_data_are_rejected():
    estimator = make("TextClassifier")
    for validation_data, message in [
        (TEXTS, "a tuple \\(X, y\\) or \\(X, y, sample_weight\\). Received: list of 24."),
        ((TEXTS, LABELS, np.ones(24), 1), "Received: tuple of 4"),
        ((TEXTS, LABELS[:3]), "one target for each input. Received: 24 inputs and 3 targets"),
        ((TEXTS, LABELS, np.ones(3)), "one weight for each input. Received: 3 for 24"),
    ]:
        with pytest.raises(ValueError, match=message):
            estimator.fit(TEXTS, LABELS, validation_data=validation_data)


# Tensors of PyTorch predate numpy 2's `copy` argument; other warnings are raised again by `pytest.warns`.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.full
def test_texts_longer_than_the_model_reads_are_warned_of():
    estimator = make("TextClassifier", max_length=3).fit(TEXTS, LABELS)
    texts = ["good good bad film", "good bad film", "one two three four five"]
    assert estimator.count_cut(texts) == 2
    message = r"must have at most 3 words to be read whole. Received: 2 longer of 3. Their ends are left out"
    for call in (estimator.predict, estimator.predict_proba, estimator.attention):
        with pytest.warns(CutWarning, match=message) as warned:
            call(texts)
        assert [each.filename for each in warned if each.category is CutWarning] == [__file__]
    with pytest.warns(CutWarning, match=message) as warned:
        explain(estimator, texts, verbose=False)
    assert __file__ in [each.filename for each in warned if each.category is CutWarning]


@pytest.mark.full
def test_one_example_with_a_weight_trains_and_stops():
    weights = (np.arange(24) == 5).astype(float)
    estimator = make("TextClassifier", learning_rate=0.05, training={"epoch_steps": 50})
    estimator.fit(TEXTS, LABELS, sample_weight=weights)
    assert estimator.predict([TEXTS[5]]).tolist() == [LABELS[5]]
    assert np.isfinite(estimator.history_["history"]["val_loss"]).all()


@pytest.mark.full
def test_cross_validation_search_and_pipelines():
    scores = cross_val_score(make("TextClassifier"), TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(make("TextClassifier"), {"units": [2, 3], "pooling": ["max"]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_estimator_.units in (2, 3)
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, make("TextClassifier")).fit(TEXTS, LABELS)
    assert set(pipeline.predict(TEXTS)) <= {"pos", "neg"}


@pytest.mark.backend_free
def test_parameters_are_stored_as_given_and_cloned():
    for name in CASES:
        estimator = make(name, units=7)
        assert estimator.get_params()["units"] == clone(estimator).units == 7
        assert estimator.set_params(units=8).units == 8


# Checks that do not hold, each with its reason.
EXPECTED = {
    "check_n_features_in": "series differ in length, so the number of columns is no property of a fitted model",
    "check_n_features_in_after_fitting": "the same",
    "check_classifiers_train": "the check asks for an error when a series has another length",
    "check_regressors_train": "the targets depend on positions, which pooling averages out",
    "check_sample_weight_equivalence_on_dense_data": "batches are drawn at random, so repeated rows give other steps",
}


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(name):
    estimator = make(name, batch_size=256)
    results = check_estimator(estimator, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    # A training of one step separates no classes.
    assert failed <= {"check_class_weight_classifiers"}
    # scikit-learn has few checks for inputs that are no numbers.
    assert sum(result["status"] == "passed" for result in results) >= (45 if "Series" in name else 1)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "texts",
    [("a", "b"), np.array(["a", "b"]), np.array([["a"], ["b"]], object), pd.Series(["a", "b"]), pd.DataFrame({"t": ["a", "b"]}),
     (text for text in "ab"), [b"a", b"b"]],
)  # fmt: skip
def test_forms_of_texts(texts):
    assert as_texts(texts) == ["a", "b"]


@pytest.fixture(params=["pandas", "polars"])
def frames(request):
    """Constructors of a frame and of a column."""
    library = pytest.importorskip(request.param)
    return library.DataFrame, lambda values: library.DataFrame({"column": values})["column"]


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["TextClassifier", "TextRegressor", "SeriesClassifier", "SeriesRegressor", "DocumentClassifier"]
)
def test_frames_and_columns_train_as_lists_do(name, frames):
    frame, column = frames
    X, y = CASES[name] if "Series" not in name else (np.array([steps[:3, 0] for steps in SERIES]), CASES[name][1])
    weight = np.arange(24) % 3 + 1.0
    expected = make(name).fit(X, y, weight)
    inputs = frame({str(step): X[:, step] for step in range(3)}) if "Series" in name else column(X)
    targets = frame({"a": y[:, 0], "b": y[:, 1]}) if y.ndim == 2 else frame({"y": y})
    model = make(name).fit(inputs, targets, column(weight))
    np.testing.assert_allclose(predict(model, inputs), predict(expected, X), rtol=1e-6)
    metric = "accuracy" if hasattr(model, "classes_") else "mse"
    assert model.evaluate(inputs, targets)[metric].value == pytest.approx(expected.evaluate(X, y)[metric].value)
    if y.ndim == 1:
        again = make(name).fit(inputs, column(y), weight)
        np.testing.assert_allclose(predict(again, inputs), predict(expected, X), rtol=1e-6)
        assert again.score(inputs, column(y)) == pytest.approx(expected.score(X, y))


@pytest.mark.backend_free
def test_targets_in_frames(frames):
    frame, column = frames
    assert Classes.fit(frame({"y": ["b", "a"]})).values.tolist() == ["a", "b"]
    for labels in (frame({"y": ["b", "a", None]}), column(["b", "a", None]), ["b", "a", None], [1.0, 0.0, np.nan]):
        with pytest.raises(DataError, match=r"Label 2 of 3 is missing \(NaN or None\)\. Drop the example"):
            Classes.fit(labels)
    with pytest.raises(DataError, match=r"Labels must be of one type\. Received: int, str"):
        Classes.fit(np.array([1, "a"], object))
    with pytest.raises(
        DataError, match=r"Input y contains NaN\. Target 1 of 3 is the first of 2\. Drop these examples"
    ):
        Numbers.fit(column([1.0, None, None]))
    with pytest.raises(ValueError, match=r"Every value of a series must be finite\. Series 1 has NaN"):
        as_series(frame({"a": [1.0, None], "b": [2.0, 3.0]}))


@pytest.mark.backend_free
def test_wrong_texts_are_refused():
    with pytest.raises(TypeError, match=r"must be a list of texts\. Received: one string\. Put it in a list"):
        as_texts("a text")
    with pytest.raises(DataError, match=r"Text 1 is missing"):
        as_texts(["a", None])
    with pytest.raises(TypeError, match=r"must hold strings\. Received: int at position 0"):
        as_texts([3])
    with pytest.raises(DataError, match=r"at least one text"):
        as_texts([])
    with pytest.raises(ValueError, match=r"a data frame of 2 columns\. Choose one"):
        as_texts(pd.DataFrame({"a": ["x"], "b": ["y"]}))


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("series", "shapes"),
    [
        (np.ones((2, 5)), [(5, 1), (5, 1)]),
        (np.ones((2, 5, 3)), [(5, 3), (5, 3)]),
        ([np.ones(5), [1, 2]], [(5, 1), (2, 1)]),
        ([np.ones((5, 3)), np.ones((2, 3))], [(5, 3), (2, 3)]),
        (pd.DataFrame(np.ones((2, 5))), [(5, 1), (5, 1)]),
    ],
)
def test_forms_of_series(series, shapes):
    assert [steps.shape for steps in as_series(series)] == shapes


@pytest.mark.backend_free
def test_wrong_series_are_refused():
    with pytest.raises(ValueError, match=r"finite\. Series 1 has NaN or infinity"):
        as_series([[1.0], [np.nan]])
    with pytest.raises(ValueError, match=r"shape \(2, 1\) at position 1, \(3, 2\) at position 0"):
        as_series([np.ones((3, 2)), np.ones(2)])
    with pytest.raises(ValueError, match=r"array of numbers\. Received: str at position 0"):
        as_series(["text"])


@pytest.mark.full
def test_a_series_of_other_channels_is_refused(fitted):
    with pytest.raises(ValueError, match=r"the 2 channels of the training\. Received: 3 channels"):
        fitted["SeriesClassifier"].predict([np.ones((4, 3))])


class Pairs:
    """A data set with a length and items, as torch has them."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return TEXTS[index], LABELS[index]


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "pairs", [lambda: zip(TEXTS, LABELS, strict=True), Pairs, lambda: list(zip(TEXTS, LABELS, strict=True))]
)
def test_pairs_of_inputs_and_targets(pairs):
    texts, labels = collect_pairs(pairs())
    assert list(texts) == list(TEXTS)
    assert labels == LABELS.tolist()
    with pytest.raises(TypeError, match=r"pairs of an input and its target, not batched\. Received: str"):
        collect_pairs(iter(["text"]))


@pytest.mark.full
def test_fit_takes_an_iterable_of_pairs():
    from_pairs = make("TextClassifier").fit(zip(TEXTS, LABELS, strict=True))
    np.testing.assert_array_equal(
        from_pairs.predict_proba(TEXTS[:3]), make("TextClassifier").fit(TEXTS, LABELS).predict_proba(TEXTS[:3])
    )


@pytest.mark.backend_free
def test_classes_and_numbers_restore_their_targets():
    for values in (np.array([3, -1, 3]), np.array(["b", "a", "b"]), np.array([True, False, True])):
        classes = Classes.from_dict(Classes.fit(values).to_dict())
        assert classes.encode(values).tolist() == [1, 0, 1]
        assert classes.values.dtype == np.unique(values).dtype
    with pytest.raises(ValueError, match=r"one of the training's: -1, 3\. Received: 7"):
        Classes.fit([3, -1]).encode([3, 7])
    # A data set sorts numbers by value, and may put a rare class last.
    for values in (["1", "2", "10"], ["positive", "negative"]):
        assert Classes(values).encode(values[::-1]).tolist() == [*range(len(values))][::-1]
        with pytest.raises(ValueError, match=r"Received: '3'"):
            Classes(values).encode(["3"])
    numbers = Numbers.from_dict(Numbers.fit([2.0, 4.0]).to_dict())
    assert numbers.encode([2.0, 4.0]).tolist() == [[-1.0], [1.0]]
    assert numbers.decode(np.array([[-1.0], [3.0]])).tolist() == [2.0, 6.0]


@pytest.mark.full
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"training": {"epochs": 3}}, r"must not repeat an argument of the estimator\. Received: 'epochs' in both"),
        (
            {"training": {"speed": 3}},
            r"settings of `limelight\.models\.TrainingConfig`: schedule, .*, tensorboard\. Received: 'speed'",
        ),
        ({"max_length": 0}, r"`max_length` must be a positive integer\. Received: max_length=0"),
        ({"vocabulary": 0.5}, r"`vocabulary` must be a positive integer\. Received: vocabulary=0\.5"),
        ({"encoder": "rnn"}, r'`encoder` must be "bilstm", .*Received: encoder=\'rnn\''),
        ({"pooling": "sum"}, r'`pooling` must be "attention", .*Received: pooling=\'sum\''),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        make("TextClassifier", **params).fit(TEXTS, LABELS)


@pytest.mark.full
def test_wrong_sizes_of_documents_and_series_are_refused():
    for name in ("max_sentences", "max_words"):
        with pytest.raises(ValueError, match=rf"`{name}` must be a positive integer\. Received: {name}=0"):
            make("DocumentClassifier", **{name: 0}).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=r"`max_length` must be a positive integer\. Received: max_length=-1"):
        make("SeriesClassifier", max_length=-1).fit(np.ones((4, 3)), [0, 1, 0, 1])


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["1", "1,5"], "Every target must be a number. Received: '1,5' at position 1. Convert it, or classify"),
        (np.array([[1, 2], [3, "x"]], object), r"Received: \"\[3 'x'\]\" at position 1"),
    ],
)
def test_targets_that_are_no_numbers_are_quoted(targets, message):
    with pytest.raises(DataError, match=message):
        Numbers.fit(targets)
    assert Numbers.fit(["1", "2.5"]).mean.tolist() == [1.75]


@pytest.mark.backend_free
def test_files_that_are_no_estimators_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"must be a \.keras file that an estimator of limelight wrote\. No such file"):
        models.load(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("text")
    with pytest.raises(DataError, match=r"It is damaged"):
        models.load(tmp_path / "text.keras")


@pytest.mark.full
def test_a_plain_keras_model_is_refused(fitted, tmp_path):
    fitted["TextClassifier"].model_.save(tmp_path / "plain.keras")
    with pytest.raises(DataError, match=r"alone: see it with `limelight show`, or load it with keras\.models"):
        models.load(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match=r'must end with "\.keras"'):
        fitted["TextClassifier"].save(tmp_path / "model.zip")


@pytest.mark.full
@pytest.mark.parametrize("name", ["TextClassifier", "DocumentClassifier"])
def test_embeddings_start_from_word_vectors(name, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("3 2\nGood 9 9\ngood 0.5 -1\nbad 2 3\nunused 7 7\n", encoding="utf-8")
    estimator = make(name, vectors=path, learning_rate=1e-9, training={"averaging": 0.0, "epoch_steps": 1}).fit(
        TEXTS, LABELS
    )
    embeddings = estimator.model_.get_layer("embedding").get_weights()[0]
    ids = {word: index for index, word in enumerate(estimator.inputs_.tokenizer.words, start=2)}
    np.testing.assert_allclose(embeddings[ids["good"]], [0.5, -1], atol=1e-5)
    np.testing.assert_allclose(embeddings[ids["bad"]], [2, 3], atol=1e-5)
    assert estimator.vectors_found_ == pytest.approx(2 / len(ids))
    path.write_text("unused 7 7\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"It holds none of \d words"):
        make(name, vectors=path).fit(TEXTS, LABELS)


def test_a_stream_trains_as_a_list_does(tmp_path):
    """The texts and ids of a stream are in files; the model is the same."""
    texts = [f"{word} film {number % 7}" for number in range(30) for word in ("good", "bad")]
    labels = ["pos", "neg"] * 30
    path = tmp_path / "reviews.csv"
    path.write_text(
        "text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(texts, labels, strict=True)), encoding="utf-8"
    )
    settings = {"encoder": None, "epochs": 1, "training": {"epoch_steps": 2}, "random_state": 3, "verbose": False}
    streamed = models.TextClassifier(**settings).fit(data.TextStream(path))
    listed = models.TextClassifier(**settings).fit(texts, labels)
    np.testing.assert_array_equal(streamed.predict_proba(texts), listed.predict_proba(texts))
    assert streamed.classes_.tolist() == ["neg", "pos"]
    with pytest.raises(TypeError, match=r"must hold strings\. Received: int at position 1"):
        models.TextClassifier(**settings).fit(iter([("a", 0), (1, 1)]))
