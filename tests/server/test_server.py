"""The page of `limelight serve`: a real server, real requests, a real browser."""

import argparse
import http.client
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest

import limelight as ll
from browsing import find_violations
from limelight._progress import Interruption
from limelight.cli import serving
from limelight.exceptions import UsageError
from limelight.inspection import override_attention, silence_heads
from limelight.maps import AttentionMap
from limelight.maps.sources import QKSource

pytest.importorskip("starlette", reason="needs the extra limelight[serve]")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra limelight[serve]")

from limelight.server import Explorer, create_app, tiles  # noqa: E402
from limelight.server import explorer as explorer_module  # noqa: E402
from limelight.server.errors import InputError  # noqa: E402
from limelight.server.explorer import Changes, Run  # noqa: E402
from limelight.server.tiles import TileCache  # noqa: E402

WORDS = ("good", "bad", "film", "the", "plot", "was")
TEXT = "the good film was bad"


@pytest.fixture(scope="module")
def estimator():
    """A small classifier with self-attention and a pooling."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 6)) for _ in range(60)]
    labels = ["yes" if "good" in text else "no" for text in texts]
    model = ll.models.TextClassifier(
        encoder="transformer", units=8, embedding_dim=8, epochs=1, training={"epoch_steps": 1}, random_state=0
    )
    return model.fit(texts, labels)


class Server:
    """A server in a thread, and requests to it."""

    def __init__(self, app):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self):
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def request(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), content

    def post(self, document, **headers):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, _, content = self.request("POST", "/run", body, **{"content_type": "application/json", **headers})
        return status, json.loads(content)


@pytest.fixture(scope="module")
def server(estimator):
    running = Server(create_app(Explorer(estimator, max_characters=2000)))
    yield running
    running.stop()


def test_a_run_is_the_prediction_of_the_estimator_and_its_attention(server, estimator):
    status, run = server.post({"text": TEXT})
    assert status == 200
    expected = dict(zip(estimator.classes_, estimator.predict_proba([TEXT])[0], strict=True))
    assert run["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert run["prediction"] == estimator.predict([TEXT])[0]
    maps = estimator.attention([TEXT])
    assert [each["key"] for each in run["maps"]] == list(maps)
    for each in run["maps"]:
        assert each["tokens"] == [TEXT.split()]
        np.testing.assert_allclose(each["weights"], maps[each["key"]].weights()[0], atol=1e-6)


def test_a_text_that_is_not_read_whole_is_marked(estimator):
    runs = [Explorer(estimator).run(text).describe() for text in ("good " * 512, "good " * 513)]
    assert [run["cut"] for run in runs] == [False, True]


def test_a_run_is_kept_for_a_page_that_is_loaded_again(server):
    _, run = server.post({"text": TEXT})
    status, _, content = server.request("GET", f"/runs/{run['run']}")
    assert (status, json.loads(content)) == (200, run)


def test_a_forbidden_word_gets_no_weight(server):
    status, run = server.post({"text": TEXT, "forbidden": [1]})
    assert status == 200
    _, before = server.post({"text": TEXT})
    assert run["probabilities"] != before["probabilities"]
    # In the first layer all else is as before: the other weights are divided by their sum.
    weights, expected = (np.array(each["maps"][0]["weights"])[:, :5] for each in (run, before))
    expected[..., 1] = 0
    np.testing.assert_allclose(weights, expected / expected.sum(-1, keepdims=True), atol=1e-5)
    for each in run["maps"]:
        assert not np.array(each["weights"])[..., 1].any()


def test_a_silenced_head_is_that_of_override_attention(server, estimator):
    key = next(iter(estimator.attention([TEXT])))
    status, run = server.post({"text": TEXT, "silenced": [[key, 1]]})
    examples = estimator.inputs_.encode([TEXT])
    batch, _, _ = examples.batch(np.arange(1), int(examples.lengths.max()))
    gate = keras.ops.convert_to_tensor(np.array([1, 0, 1, 1], "float32")[:, None, None])
    outputs = override_attention(estimator.model_, batch, {key: lambda weights, permitted: weights * gate})
    assert status == 200
    expected = dict(zip(estimator.classes_, keras.ops.convert_to_numpy(outputs)[0].tolist(), strict=True))
    assert run["probabilities"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.full
def test_words_are_forbidden_in_their_sentence_of_a_document():
    texts = ["A film. It was good.", "A plot. It was bad."] * 10
    model = ll.models.DocumentClassifier(
        units=4, embedding_dim=4, epochs=1, training={"epoch_steps": 1}, random_state=0
    )
    explorer = Explorer(model.fit(texts, ["yes", "no"] * 10))
    maps = explorer.run(texts[0], Changes(forbidden=(4,))).maps
    before = explorer.run(texts[0]).maps
    words = next(key for key, each in before.items() if len(each.shape) == 5)
    first, second = (each[words].weights()[0] for each in (before, maps))
    # The fifth word is the second of the second sentence.
    assert before[words].tokens[1][1] == "was"
    expected = first.copy()
    expected[1, ..., 1] = 0
    expected[1] /= expected[1].sum(-1, keepdims=True)
    np.testing.assert_allclose(second, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("document", "status", "message"),
    [
        (b"\xff\xfe\x00binary", 422, "must be JSON in UTF-8"),
        (b"[" * 70_000, 422, "must be JSON"),
        (b"[1]", 422, "must be a JSON object"),
        (b"x" * 200_000, 413, "at most"),
        ({"text": 3}, 422, "`text` must be a string, such as .* Received: 3"),
        ({"text": TEXT, "silence": []}, 422, "must be of text, silenced, forbidden. Received: 'silence'"),
        ({"text": "  "}, 422, "must not be empty"),
        ({"text": "a" * 2001}, 422, "at most 2,000 characters. Received: 2,001"),
        ({"text": TEXT, "forbidden": [5]}, 422, r"positions below 5, the number of words. Received: 5. Count from 0\."),
        ({"text": TEXT, "forbidden": [10**300]}, 422, "Received: 1000.*…"),
        ({"text": TEXT, "forbidden": [-1]}, 422, "list of positions"),
        ({"text": TEXT, "forbidden": [True]}, 422, "list of positions"),
        ({"text": TEXT, "forbidden": [1.5]}, 422, r"list of positions .* Received: \[1.5\]"),
        ({"text": TEXT, "forbidden": [[1, 2]]}, 422, "list of positions"),
        ({"text": TEXT, "forbidden": "1"}, 422, "list of positions"),
        ({"text": TEXT, "silenced": [["nothing", 0]]}, 422, "must name a map of .* Received: 'nothing'. Choose one"),
        (
            {"text": TEXT, "silenced": [["KEY", 4]]},
            422,
            "heads below 4, the number of heads of .* Received: 4. Count from 0",
        ),
        ({"text": TEXT, "silenced": [["KEY", -1]]}, 422, "list of pairs"),
        ({"text": TEXT, "silenced": [["KEY", [0, 1]]]}, 422, "list of pairs"),
        ({"text": TEXT, "silenced": {"KEY": 0}}, 422, "list of pairs"),
        ({"text": TEXT, "silenced": ["nothing"]}, 422, "list of pairs"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(server, estimator, document, status, message):
    if isinstance(document, dict):
        document = json.loads(json.dumps(document).replace("KEY", next(iter(estimator.attention([TEXT])))))
    received, answer = server.post(document)
    assert received == status
    assert re.search(message, answer["error"])
    assert len(answer["error"].splitlines()) == 1


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("map=nothing", 422, "`map` must be one of .* Received: 'nothing'. Choose one"),
        ("head=9", 422, "`head` must be below 4 .* Received: 9. Count from 0"),
        ("row=1", 422, "`row` must be below 1"),
        ("column=99999999", 422, "`column` must be below 1"),
        ("zoom=13", 422, "`zoom` must be at most 12. Received: 13"),
        ("zoom=-1", 422, "`zoom` must be a whole number from 0. Received: '-1'"),
        ("zoom=1e3", 422, "`zoom` must be a whole number from 0"),
        ("sampled=x", 422, "`sampled` must be a whole number from 0"),
    ],
)
def test_a_tile_that_does_not_exist_is_refused_with_its_reason(server, estimator, query, status, message):
    _, run = server.post({"text": TEXT})
    values = {"map": run["maps"][0]["key"], "head": 0, "row": 0, "column": 0, "zoom": 0}
    values |= dict([query.split("=")])
    path = f"/runs/{run['run']}/tile?{urllib.parse.urlencode(values)}"
    received, _, content = server.request("GET", path)
    answer = json.loads(content)
    assert received == status
    assert re.search(message, answer["error"])
    received, _, content = server.request("GET", path.replace(run["run"], "nothing"))
    assert (received, json.loads(content)["error"]) == (
        404,
        "A run must be one of the last. Received: 'nothing'. Run the text again.",
    )


def test_attention_that_cannot_be_changed_is_refused_with_its_reason(estimator, monkeypatch):
    class Overridden:
        keys = ("attention",)

        def __init__(self, model, batch):
            pass

    key = next(iter(estimator.attention([TEXT])))
    monkeypatch.setattr(explorer_module, "OverriddenModel", Overridden)
    running = Server(create_app(Explorer(estimator)))
    try:
        status, answer = running.post({"text": TEXT, "silenced": [[key, 1]]})
        assert status == 422
        assert re.search(
            f"TextClassifier cannot be changed: it must be of attention. Received: {key}. Change the others alone",
            answer["error"],
        )
    finally:
        running.stop()


def test_a_change_is_seen_in_the_layers_behind_it(server, estimator):
    key, *_, last = estimator.attention([TEXT])
    _, before = server.post({"text": TEXT})
    status, run = server.post({"text": TEXT, "silenced": [[key, 1]]})
    assert status == 200
    first, second = (
        {each["key"]: np.array(each["weights"]) for each in document["maps"]} for document in (before, run)
    )
    assert not second[key][1].any()
    np.testing.assert_allclose(second[key][0], first[key][0], atol=1e-6)
    assert np.abs(second[last] - first[last]).max() > 1e-5
    examples = estimator.inputs_.encode([TEXT])
    batch, _, _ = examples.batch(np.arange(1), int(examples.lengths.max()))
    silence = silence_heads(1)
    _, weights = override_attention(
        estimator.model_, batch, {key: silence, last: lambda weights, permitted: weights}, return_weights=True
    )
    np.testing.assert_allclose(second[last], weights[last][0], atol=1e-5)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:(Texts|Inputs) must have at most 5 units")
def test_translators(monkeypatch):
    texts = [" ".join(words) for words in itertools.permutations(WORDS[:4], 3)]
    settings = {"max_length": 5, "beam": 1, "epochs": 1, "training": {"epoch_steps": 1}, "verbose": False}
    explorer = Explorer(ll.models.Translator(random_state=0, **settings).fit(texts, texts))
    running = Server(create_app(explorer))
    try:
        status, run = running.post({"text": texts[0]})
        assert status == 200
        assert run["prediction"] == explorer.estimator.predict([texts[0]])[0]
        maps = explorer.estimator.attention([texts[0]])
        np.testing.assert_allclose(run["maps"][0]["weights"], maps[run["maps"][0]["key"]].weights()[0], atol=1e-6)
        status, answer = running.post({"text": texts[0], "forbidden": [0]})
        assert status == 422
        assert "must run once for a text. Received: a Translator" in answer["error"]
        monkeypatch.setattr(explorer.estimator, "mechanism", None)
        status, answer = running.post({"text": texts[0]})
        assert status == 422
        assert answer["error"].startswith("The model must have attention. Received: mechanism=None.")
    finally:
        running.stop()


def test_other_sites_cannot_use_the_server(server):
    body = json.dumps({"text": TEXT}).encode()
    # What a form of another site can send.
    assert server.request("POST", "/run", body, content_type="text/plain")[0] == 415
    assert server.request("GET", "/model", host="attacker.example")[0] == 400
    status, headers, _ = server.request("GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", ["/assets/..%2f__init__.py", "/assets/__init__.py", "/nothing", "/runs/nothing/tile"])
def test_paths_that_do_not_exist(server, path):
    assert 400 <= server.request("GET", path)[0] < 500


def test_other_hosts_need_the_token(estimator):
    with pytest.raises(ValueError, match="needs a token"):
        create_app(Explorer(estimator), hosts=("*",))
    running = Server(create_app(Explorer(estimator), hosts=("*",), token="secret"))
    try:
        assert running.request("GET", "/model")[0] == 401
        assert running.request("GET", "/model?token=wrong")[0] == 401
        status, headers, _ = running.request("GET", "/?token=secret", host="example.org")
        assert status == 200
        assert headers["set-cookie"].startswith("limelight-token=secret; HttpOnly; SameSite=Strict")
        assert running.request("GET", "/model", cookie="limelight-token=secret")[0] == 200
    finally:
        running.stop()


def test_one_run_at_a_time_and_no_more_than_the_queue(estimator):
    entered, free = threading.Semaphore(0), threading.Event()
    active, most = [], []

    class Slow(Explorer):
        def run(self, text, changes=None):
            active.append(1)
            most.append(len(active))
            entered.release()
            free.wait(60)
            active.pop()
            return super().run(text, changes)

    running = Server(create_app(Slow(estimator), queue=2))
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(running.post({"text": TEXT})[0])) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        entered.acquire(timeout=60)
        while running.server.config.loaded_app is None or len(_waiting(running)) < 3:
            time.sleep(0.01)
        status, answer = running.post({"text": TEXT})
        assert (status, answer["error"]) == (503, "Too many requests are waiting for the model. Try again.")
        free.set()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 3
        assert max(most) == 1
    finally:
        free.set()
        running.stop()


def _waiting(running):
    app = running.server.config.app
    return range(app.state.waiting)


def test_only_the_last_runs_are_kept(estimator):
    explorer = Explorer(estimator, max_bytes=1)
    first, second = explorer.run(TEXT), explorer.run(TEXT)
    assert explorer.get(second.number) is second
    with pytest.raises(KeyError):
        explorer.get(first.number)


def test_a_tile_over_http(estimator):
    random = np.random.default_rng(3)
    query, key = (random.standard_normal((1, 1, 300, 8)).astype(np.float32) for _ in range(2))
    explorer = Explorer(estimator)
    attention_map = AttentionMap("a/b", QKSource(query, key))
    explorer._runs["x"] = Run("x", {}, ll.AttentionMaps([attention_map]))
    running = Server(create_app(explorer))
    try:
        status, headers, body = running.request("GET", "/runs/x/tile?map=a%2Fb&head=0&row=1&column=0&zoom=0")
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        rows, columns = np.frombuffer(body, "<u4", 2)
        means, maxima = np.frombuffer(body, "<f4", offset=8).reshape(2, rows, columns)
        expected = attention_map.weights()[0, 0, 256:, :256]
        tile = TileCache(1 << 20).compute("x", attention_map, 0, 1, 0, 0)
        np.testing.assert_array_equal(means, tile.means)
        np.testing.assert_array_equal(maxima, tile.maxima)
        # Two products of the same numbers round differently.
        np.testing.assert_allclose(means, expected, rtol=1e-5)
        for query_string in (
            "map=c",
            "map=a%2Fb&head=1&row=0&column=0&zoom=0",
            "map=a%2Fb&head=0&row=9&column=0&zoom=0",
        ):
            assert running.request("GET", f"/runs/x/tile?{query_string}")[0] == 422
        assert running.request("GET", "/runs/x/tile?map=a%2Fb&head=0&row=0&column=0&zoom=99")[0] == 422
    finally:
        running.stop()


@pytest.fixture
def long_map(estimator, monkeypatch):
    """A server with a map of 700 queries in three strips, of which at most 16 are read at first; and what was read."""
    random = np.random.default_rng(3)
    query, key = (random.standard_normal((1, 1, 700, 8)).astype(np.float32) for _ in range(2))
    explorer, read, original = Explorer(estimator), [], QKSource.reduce_rows
    explorer._runs["x"] = Run("x", {}, ll.AttentionMaps([AttentionMap("a", QKSource(query, key))]))
    monkeypatch.setattr(tiles, "_MAX_SAMPLED_SCORES", 16 * 700)
    monkeypatch.setattr(
        QKSource, "reduce_rows", lambda self, *arguments: read.append(len(arguments[2])) or original(self, *arguments)
    )
    running = Server(create_app(explorer))
    yield running, read
    running.stop()


def test_the_first_look_at_a_tile_over_http_is_of_a_sample(long_map):
    running, read = long_map
    path, shares = "/runs/x/tile?map=a&head=0&row=0&column=0&zoom=2", []
    for query in ("&sampled=1", "&sampled=1", "", "&sampled=1"):
        status, headers, body = running.request("GET", path + query)
        assert status == 200
        assert np.frombuffer(body, "<u4", 2).tolist() == [175, 175]
        assert len(body) == 8 + 2 * 4 * 175 * 175
        shares.append(float(headers["limelight-share"]))
    assert read == [read[0], 256, 256, 188]
    assert read[0] <= 16
    assert shares == pytest.approx([read[0] / 700, read[0] / 700, 1, 1], rel=1e-5)


def test_a_tile_is_not_finished_for_a_client_that_is_gone(long_map, monkeypatch):
    running, read = long_map
    entered, gone, counted = threading.Event(), threading.Event(), QKSource.reduce_rows

    def reduce_rows(self, *arguments):
        entered.set()
        gone.wait(60)
        return counted(self, *arguments)

    monkeypatch.setattr(QKSource, "reduce_rows", reduce_rows)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    connection.request("GET", "/runs/x/tile?map=a&head=0&row=0&column=0&zoom=2")
    entered.wait(60)
    connection.close()
    time.sleep(0.5)
    gone.set()
    # The next tile of many queries waits for the one before.
    assert running.request("GET", "/runs/x/tile?map=a&head=0&row=0&column=0&zoom=1")[0] == 200
    assert read == [256, 256]


@pytest.mark.full
def test_models_of_numbers_are_refused():
    random = np.random.default_rng(0)
    model = ll.models.SeriesClassifier(units=4, epochs=1, training={"epoch_steps": 1}, random_state=0)
    model.fit(random.standard_normal((24, 5, 2)), [0, 1] * 12)
    with pytest.raises(ValueError, match=r"must read texts\. Received: SeriesClassifier"):
        Explorer(model)


def test_lone_surrogates_and_control_characters_are_read(estimator):
    with pytest.raises(InputError, match="must not be empty"):
        Explorer(estimator).run("\n")
    assert Explorer(estimator).run("good \ud800 \x00 film").prediction["prediction"] in ("yes", "no")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium and chromedriver on the PATH")
def test_the_page_in_a_browser(server, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)

    def wait(condition):
        return WebDriverWait(driver, 60, poll_frequency=0.05).until(lambda _: condition())

    def words():
        return driver.find_elements(By.CSS_SELECTOR, "#words button")

    hostile = "good <script>document.title='x'</script> film \u202e bad"
    try:
        driver.get(f"http://127.0.0.1:{server.port}/")
        driver.execute_script("document.getElementById('text').value = arguments[0]", hostile)
        driver.find_element(By.ID, "submit").click()
        wait(lambda: words())
        assert driver.title == "limelight"
        assert [each.text for each in words()][:4] == ["good", "<", "script", ">"]
        before = driver.find_element(By.ID, "prediction").text
        words()[0].click()
        wait(lambda: "points" in driver.find_element(By.ID, "prediction").text)
        assert words()[0].get_attribute("aria-pressed") == "true"
        # A reload loses nothing.
        driver.refresh()
        wait(lambda: words() and words()[0].get_attribute("aria-pressed") == "true")
        assert driver.execute_script("return document.getElementById('text').value") == hostile
        driver.find_element(By.ID, "reset").click()
        wait(lambda: driver.find_element(By.ID, "prediction").text == before)
        Select(driver.find_element(By.ID, "map")).select_by_index(0)
        wait(lambda: driver.find_element(By.ID, "matrix").is_displayed())
        pixels = (
            "const c = document.getElementById('canvas'); return c.getContext('2d').getImageData(9, 9, 1, 1).data[3]"
        )
        wait(lambda: driver.execute_script(pixels) == 255)
        driver.find_element(By.ID, "silence").click()
        wait(lambda: driver.find_element(By.ID, "silence").get_attribute("aria-pressed") == "true")
        # A text that is changed is read without the button, and the changes of the last one end.
        driver.find_element(By.ID, "text").clear()
        driver.find_element(By.ID, "text").send_keys("the plot was bad")
        shown = "return Array.from(document.querySelectorAll('#words button'), (word) => word.textContent)"
        wait(lambda: driver.execute_script(shown) == ["the", "plot", "was", "bad"])
        assert driver.find_element(By.ID, "silence").get_attribute("aria-pressed") == "false"
        assert (
            driver.execute_script("return JSON.parse(sessionStorage.getItem('limelight')).text") == "the plot was bad"
        )
        assert [option.text for option in Select(driver.find_element(By.ID, "head")).options][:1] == ["1"]
        driver.execute_script("document.getElementById('text').value = arguments[0]", "a " * 513)
        driver.find_element(By.ID, "submit").click()
        wait(lambda: "its end is left out" in driver.find_element(By.ID, "hint").text)
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        for width, scheme in ((1280, "light"), (390, "dark")):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            assert find_violations(driver) == []
    finally:
        driver.quit()


@pytest.mark.full
@pytest.mark.subprocess
def test_the_command_serves_until_it_is_interrupted(estimator, tmp_path):
    path = tmp_path / "model.keras"
    estimator.save(path)
    command = [sys.executable, "-m", "limelight", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            port = address[1]
            with urllib.request.urlopen(f"{address[0]}model") as answer:
                assert json.load(answer)["classes"] == ["no", "yes"]
            arguments = argparse.Namespace(model=str(path), host="127.0.0.1", port=int(port))
            with pytest.raises(UsageError, match=rf"port {port}: Address already in use\. Try --port 0"):
                serving.run(arguments, Interruption())
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stderr.read() == "Stopped.\n"
        finally:
            process.kill()


def test_a_fault_of_the_server_is_not_the_users(estimator, monkeypatch):
    explorer = Explorer(estimator)
    running = Server(create_app(explorer))
    try:
        # As a fault of the model's code would: the text is not at fault.
        monkeypatch.setattr(explorer.estimator.inputs_, "tokens", lambda texts: np.zeros(2).reshape(3))
        status, answer = running.post({"text": TEXT})
        assert status == 500
        assert answer["error"] == "The server failed: ValueError. Its log has the details."
        monkeypatch.undo()
        assert running.post({"text": TEXT})[0] == 200
    finally:
        running.stop()
