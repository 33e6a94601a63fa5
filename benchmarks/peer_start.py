"""One peer in a process of its own: `python benchmarks/peer_start.py PEER WORK PHOTO THREADS image|both`.

Prints one line of JSON when the first embedding is there: when that was, the processor time and the peak resident
memory until then. It goes on until its input ends, so that its memory can be looked at.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from peer_models import open_peer

from edgeclip.evaluate.footprint import peak_rss_mb

name, work, photo, threads, what = sys.argv[1:]
peer = open_peer(name, Path(work), int(threads))
peer.file(Path(photo))
ready, cpu = time.time(), time.process_time()
if what == "both" and peer.text:
    peer.text(np.array([[49406, 320, 1929, 49407]], np.int64))
print(json.dumps({"ready": ready, "cpu": cpu, "texts": bool(peer.text), "peak_rss_mb": peak_rss_mb()}), flush=True)
sys.stdin.read()
