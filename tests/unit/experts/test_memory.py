import os
import subprocess
import sys

PROGRAM = """
import random
import numpy as np
import psutil
from collections import deque
from appliance.experts.llama.memory import map_large_blocks

map_large_blocks()
random, held, size, most = random.Random(1), deque(), 0, 0
before = psutil.Process().memory_info().rss
for _ in range(400):
    block = np.ones(int(random.choice((2, 5, 8, 20, 34)) * 1e6 * random.uniform(0.8, 1.2)), np.uint8)
    held.append(block)
    size += len(block)
    while size > 128e6:
        size -= len(held.popleft())
    most = max(most, psutil.Process().memory_info().rss - before)
print(most / 128e6)
"""


def test_freed_blocks_go_back_to_the_system() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=os.environ, timeout=100
    )
    assert float(run.stdout) < 1.15
