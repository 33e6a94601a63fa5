"""Many clients at once on one server process: errors, latencies of texts and images, and memory.

    python benchmarks/serve.py --bundle BUNDLE --clients 64 --seconds 60

Half of the clients send a sentence, half a JPEG of 1 MP; each asks again as soon as it is answered. The figures before
the load are of one client alone. Memory is compared between a third of the time, when all is warm, and the end.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

SEED = 0
ALONE, TEXTS, IMAGES = 20, 100_000, 8
WORDS = ["red", "blue", "green", "ball", "box", "mug", "star", "heart", "on", "the", "grass", "sand", "wooden", "table"]


def text(rng: np.random.Generator) -> bytes:
    """A request for a sentence of 8 words."""
    return json.dumps({"input": " ".join(rng.choice(WORDS, 8))}).encode()


def image(rng: np.random.Generator) -> bytes:
    """A request for a JPEG of 1 MP."""
    pixels = rng.integers(0, 255, (29, 39, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((1155, 866), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return json.dumps({"input": [{"image": base64.b64encode(file.getvalue()).decode()}]}).encode()


class Client:
    """One connection, and how long each of its answers took."""

    def __init__(self, port: int, bodies: list[bytes]) -> None:
        self.connection, self.bodies = http.client.HTTPConnection("127.0.0.1", port), cycle(bodies)
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()

    def ask(self) -> None:
        """One request."""
        start = time.perf_counter()
        self.connection.request("POST", "/v1/embeddings", next(self.bodies))
        answer = self.connection.getresponse()
        answer.read()
        self.statuses[answer.status] += 1
        if answer.status == http.client.OK:
            self.seconds.append(time.perf_counter() - start)

    def ask_until(self, end: float) -> None:
        """One after another."""
        while time.perf_counter() < end:
            self.ask()


def rss_mb(process: int) -> float:
    """Resident memory of the server."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1024


def told(name: str, seconds: list[float]) -> None:
    """Print a line of a client's latencies."""
    p50, p95, p99 = (1000 * np.percentile(seconds, q) for q in (50, 95, 99))
    print(f"{name:14} {len(seconds):6} answers  p50 {p50:8.1f} ms  p95 {p95:8.1f} ms  p99 {p99:8.1f} ms", flush=True)


def main() -> None:
    """Serve, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", default="builtin:tabletop")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    rng = np.random.default_rng(SEED)
    command = [sys.executable, "-m", "edgeclip", "serve", given.bundle, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            port = next(int(found[1]) for line in server.stderr if (found := re.search(r"http://[\d.]+:(\d+)", line)))
            threading.Thread(target=server.stderr.read, daemon=True).start()
            texts, images = [text(rng) for _ in range(TEXTS)], [image(rng) for _ in range(IMAGES)]
            for name, bodies in (("text alone", texts), ("image alone", images)):
                alone = Client(port, bodies)
                for _ in range(ALONE):
                    alone.ask()
                told(name, alone.seconds[ALONE // 4 :])
            clients = [Client(port, images if number % 2 else texts[number::2]) for number in range(given.clients)]
            end = time.perf_counter() + given.seconds
            threads = [threading.Thread(target=client.ask_until, args=(end,)) for client in clients]
            for thread in threads:
                thread.start()
            time.sleep(given.seconds / 3)
            warm = rss_mb(server.pid)
            for thread in threads:
                thread.join()
            told("texts", [seconds for client in clients[::2] for seconds in client.seconds])
            told("images", [seconds for client in clients[1::2] for seconds in client.seconds])
            print("answers by status:", dict(sum((client.statuses for client in clients), Counter())))
            print(f"memory: {warm:.0f} MB warm, {rss_mb(server.pid):.0f} MB at the end")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
