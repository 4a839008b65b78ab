"""Times `carjax select` on the sample as a whole process: cold and warm compilation cache.

    python benchmarks/select_speed.py

Prints seconds, the multiple of the video's length, the time to the first line, and peak memory.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import machine

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"
LENGTH_S = 15.0


def run(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "carjax", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    first = process.stderr.readline()
    first_s = time.perf_counter() - start
    rest = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit((first + rest).decode())
    return {
        "seconds": round(seconds, 2),
        "times_video_length": round(seconds / LENGTH_S, 2),
        "first_line_s": round(first_s, 2),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CARJAX_CACHE_DIR": f"{folder}/cache"}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        arguments = ["select", str(SAMPLE), f"--out={folder}/out", "--fps=all"]
        figures = {"cold": run(arguments, environment)}
        warm = [run(arguments, environment) for _ in range(3)]
        figures["warm"] = min(warm, key=lambda r: r["seconds"])
    for kind, row in figures.items():
        print(kind, *(f"{key}={value}" for key, value in row.items()))
    start = time.perf_counter()
    command = [sys.executable, "-m", "carjax", "select", "no_such.mp4", "--out=x"]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    figures["bad_path_s"] = round(time.perf_counter() - start, 2)
    print("bad path:", figures["bad_path_s"], "s")
    machine.save(
        "select_speed.json",
        {"command": "carjax select, 180 frames, all scored, localised", **figures},
    )


if __name__ == "__main__":
    main()
