"""A process is set up: few heaps of the C library, and one place for compiled programs."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from carjax import runtime

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


@pytest.mark.parametrize(
    ("given", "kept"), [("programs", "{here}/programs"), ("gs://bucket/programs", None)]
)
def test_compiled_programs_stay_where_they_are_when_the_working_directory_changes(
    tmp_path, monkeypatch, given, kept
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "keep_few_arenas", lambda: None)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")  # what this process has already stays
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    runtime.set_up_jax()
    found = jax.config.values["jax_compilation_cache_dir"]
    assert found == (kept or given).format(here=tmp_path)


@pytest.mark.parametrize(
    ("flags", "asked"),
    [("", True), ("--xla_cpu_foo --xla_force_host_platform_device_count=4", False)],
)
def test_as_many_devices_as_cores_unless_the_environment_says(monkeypatch, flags, asked):
    changed = {}
    monkeypatch.setattr(runtime, "keep_few_arenas", lambda: None)
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setenv("XLA_FLAGS", flags)
    runtime.set_up_jax()
    assert ("jax_num_cpu_devices" in changed) is asked
