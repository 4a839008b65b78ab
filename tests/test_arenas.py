"""The heaps of the C library: few, however many threads there are."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
_THREADS = """
import ctypes, sys, threading
from carjax import runtime

if sys.argv[1] == "few":
    runtime.keep_few_arenas()
together = threading.Barrier(8)

def work():
    together.wait()
    kept.append(bytearray(50_000))
    together.wait()

kept = []
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(("how", "few"), [("few", True), ("many", False)])
def test_threads_share_two_heaps(how, few):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _THREADS, how],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "malloc_stats" in done.stderr:
        pytest.skip("this C library does not tell")
    assert done.returncode == 0, done.stderr
    assert (done.stderr.count("Arena ") <= 2) == few
