"""Measure the server of `limelight serve`: a load on one machine, and exact tiles of long maps.

    python benchmarks/serving.py                    60 seconds of load by 4 clients, and tiles of 100,000 tokens
    python benchmarks/serving.py --seconds 10 --tokens 20000

Prints answers, errors and latency of the load, the memory of the process at six times from 10 seconds after its start to its end,
and the latency of tiles at random places of one head of size 64, over HTTP: of rows that are looked at for the first time, of
the exact tile if that is a sample of the rows, and of other columns of the same rows. The clients are threads of that process.
"""

import argparse
import http.client
import json
import resource
import socket
import threading
import time
from pathlib import Path

import numpy as np
import uvicorn

import limelight as ll
from limelight.maps.sources import QKSource
from limelight.server import Explorer, create_app
from limelight.server.explorer import Run

WORDS = ("good", "bad", "dull", "fine", "film", "plot", "the", "was", "and", "scene")


def make_estimator(random: np.random.Generator) -> ll.models.TextClassifier:
    """Train a small classifier with self-attention for a few steps."""
    texts = [" ".join(random.choice(WORDS, 12)) for _ in range(100)]
    labels = ["yes" if "good" in text else "no" for text in texts]
    model = ll.models.TextClassifier(
        encoder="transformer", units=64, epochs=1, training={"epoch_steps": 5}, random_state=0
    )
    return model.fit(texts, labels)


def start(explorer: Explorer) -> tuple[uvicorn.Server, int]:
    """Start the server in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(explorer), log_level="error", ws="none"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return server, listener.getsockname()[1]


def get_memory() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def load(port: int, seconds: float, clients: int) -> None:
    """Let several clients send texts, one after another, and print what came back."""
    latencies: list[float] = []
    errors: list[str] = []
    end = time.monotonic() + seconds

    def run(seed: int) -> None:
        random = np.random.default_rng(seed)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < end:
            document: dict = {"text": " ".join(random.choice(WORDS, random.integers(3, 200)))}
            if random.random() < 0.3:
                document["forbidden"] = [int(random.integers(3))]
            started = time.monotonic()
            connection.request("POST", "/run", json.dumps(document), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            latencies.append(time.monotonic() - started)
            if response.status != 200:
                errors.append(f"{response.status} {content[:80]!r}")

    # The first texts of each length compile; memory is compared after them.
    first = min(10.0, seconds / 2)
    times = np.linspace(first, seconds, 6)
    memory: list[float] = []
    timers = [threading.Timer(moment, lambda: memory.append(get_memory())) for moment in times]
    for timer in timers:
        timer.start()
    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for timer in timers:
        timer.join()
    print(
        f"load: {clients} clients, {seconds:g} s: {len(latencies)} answers, {len(errors)} errors, median "
        f"{1e3 * np.median(latencies):.0f} ms, 99 % under {1e3 * np.quantile(latencies, 0.99):.0f} ms"
    )
    print(
        f"memory: {', '.join(f'{used:.0f} MB at {moment:.0f} s' for used, moment in zip(memory, times, strict=True))}"
    )
    print("\n".join(errors[:5]), end="")


def measure_tiles(port: int, explorer: Explorer, tokens: int, random: np.random.Generator) -> None:
    """Fetch tiles at random places of a map of `tokens` x `tokens` weights."""
    query, key = (random.standard_normal((1, 1, tokens, 64)).astype(np.float32) for _ in range(2))
    explorer._runs["long"] = Run(
        "long", {}, ll.AttentionMaps([ll.AttentionMap("attention", QKSource(query, key, 0.125))])
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def fetch(row: int, column: int, zoom: int, sampled: int = 1) -> float:
        place = f"row={row}&column={column}&zoom={zoom}&sampled={sampled}"
        started = time.monotonic()
        connection.request("GET", f"/runs/long/tile?map=attention&head=0&{place}")
        response = connection.getresponse()
        assert response.read()
        assert response.status == 200
        return 1e3 * (time.monotonic() - started)

    def describe(latencies: list[float]) -> str:
        return f"median {np.median(latencies):.0f} ms, slowest {max(latencies):.0f} ms"

    for zoom in range(10):
        count = -(-tokens // (256 << zoom))
        # Rows that no earlier tile has read.
        explorer.tiles.discard("long")
        places = [(int(row), int(random.integers(count))) for row in random.permutation(count)[:15]]
        first = [fetch(*place, zoom) for place in places]
        print(f"tiles of {tokens} tokens at zoom {zoom}: first {describe(first)}", end="; ")
        # All rows of a high zoom take half a minute.
        exact = places[: 15 if zoom < 3 else 2] if zoom <= 5 else []
        if exact and zoom:
            print(f"exact {describe([fetch(*place, zoom, sampled=0) for place in exact])}", end="; ")
        again = [fetch(row, int(random.integers(count)), zoom) for row, _ in exact or places for _ in range(3)]
        print(f"again {describe(again)}", flush=True)
        if count == 1:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"memory: {get_memory():.0f} MB, at most {peak:.0f} MB; strips {explorer.tiles.nbytes / 1e6:.0f} MB")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="length of the load (default: 60)")
    parser.add_argument("--clients", type=int, default=4, help="clients at a time (default: 4)")
    parser.add_argument("--runs", type=float, default=512, help="MB of runs that the server keeps (default: 512)")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of the long map (default: 100000)")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    explorer = Explorer(make_estimator(random), max_bytes=int(arguments.runs * 1e6))
    server, port = start(explorer)
    load(port, arguments.seconds, arguments.clients)
    measure_tiles(port, explorer, arguments.tokens, random)
    server.should_exit = True


if __name__ == "__main__":
    main()
