"""One peer in a process of its own: `python benchmarks/peer_start.py PEER WORK PHOTO THREADS [both]`.

Prints one line of JSON when the first embedding is there: when that was, and the peak resident memory until then.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from peer_models import open_peer

from edgeclip.evaluate.footprint import peak_rss_mb

name, work, photo, threads, *both = sys.argv[1:]
peer = open_peer(name, Path(work), int(threads))
peer.file(Path(photo))
ready = time.time()
if both:
    peer.text(np.array([[49406, 320, 1929, 49407]], np.int64))
print(json.dumps({"ready": ready, "peak_rss_mb": peak_rss_mb()}), flush=True)
