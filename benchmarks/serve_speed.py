"""Times `carjax serve` from its start: the first answer, and the sample's photos after the upload.

    python benchmarks/serve_speed.py

*cold*: nothing is compiled yet, and the upload comes at once; *warm*: the second start; *next*: the
following upload to the same server. Each video is the sample, 15 s of 640 × 360.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import httpx
import machine

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"


def photos_after_s(client: httpx.Client) -> float:
    """Seconds from the upload's first byte to the first photo's last."""
    start = time.perf_counter()
    with SAMPLE.open("rb") as file:
        answer = client.post("/jobs", files={"video": (SAMPLE.name, file)})
    job = answer.raise_for_status().json()["id"]
    with client.stream("GET", f"/jobs/{job}/events") as events:
        lines = [line for line in events.iter_lines() if line.startswith("data: ")]
    status = json.loads(lines[-1].removeprefix("data: "))
    if status["state"] != "done":
        sys.exit(status["error"])
    client.get(f"/jobs/{job}/photos/type.jpg", params={"size": "small"}).raise_for_status()
    seconds = time.perf_counter() - start
    client.delete(f"/jobs/{job}")
    return round(seconds, 2)


def run(cache: str, uploads: int) -> tuple[float, list[float]]:
    """(seconds until the server answers, seconds of each upload until its photos are there)."""
    environment = {**os.environ, "CARJAX_CACHE_DIR": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    start = time.perf_counter()
    command = [sys.executable, "-m", "carjax", "serve", "--port=0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://\S+", process.stdout.readline())[0]
            transport = httpx.HTTPTransport(retries=3)
            with httpx.Client(base_url=address, timeout=300, transport=transport) as client:
                client.get("/").raise_for_status()
                answers_s = round(time.perf_counter() - start, 2)
                return answers_s, [photos_after_s(client) for _ in range(uploads)]
        finally:
            process.terminate()


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        answers_s, (cold,) = run(cache, 1)
        _, (warm, following) = run(cache, 2)
    figures = {
        "answers_s": answers_s,
        "photos_after_upload_s": {"cold": cold, "warm": warm, "next": following},
    }
    print(json.dumps(figures))
    machine.save("serve_speed.json", figures)


if __name__ == "__main__":
    main()
