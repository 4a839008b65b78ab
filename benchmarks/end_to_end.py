"""Times `carjax select` on a minute of 1080p video against tools that pick frames of a video.

    python benchmarks/end_to_end.py [CLIP …] [--peers=PYTHON] [--turns=2]

Whole processes, from start to the last photo written, warm caches, the best of the turns. The clips
are made by `make_clip.py`. The peers, where they are at hand, pick twelve frames as well:

    python -m venv VENV && VENV/bin/pip install katna scenedetect    # --peers=VENV/bin/python

Prints one table and writes results/end_to_end.json; clips not asked for keep their figures. (katna
brings another build of OpenCV, so it gets an environment of its own.)
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import machine
import make_clip

PHOTOS = 12
KATNA = """
import sys
from Katna.video import Video
from Katna.writer import KeyFrameDiskWriter
if __name__ == "__main__":
    Video().extract_video_keyframes(
        no_of_frames=int(sys.argv[3]), file_path=sys.argv[1],
        writer=KeyFrameDiskWriter(location=sys.argv[2]),
    )
"""


def timed(command: list[str], limit_s: float = 170) -> tuple[float, str]:
    """Seconds that a command takes, and what it printed; infinite if it fails."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return float("inf"), f"more than {limit_s:.0f} s"
    seconds = time.perf_counter() - start
    if done.returncode:
        return float("inf"), (done.stderr.strip().splitlines() or ["failed"])[-1]
    return seconds, done.stdout + done.stderr


def carjax(clip: pathlib.Path, folder: str, turns: int) -> dict:
    command = [sys.executable, "-m", "carjax", "select", str(clip), f"--out={folder}/carjax"]
    runs = [timed(command) for _ in range(1 + turns)][1:]  # the first one fills the caches
    seconds, text = min(runs)
    if seconds == float("inf"):
        sys.exit(text)
    parts = dict(re.findall(r"(load|decode|score|choose|write) ([\d.]+)", text))
    scored = re.search(r"(\d+) of (\d+) frames scored", text)
    return {
        "seconds": round(seconds, 2),
        "times_real_time": round(make_clip.SECONDS / seconds, 2),
        "scored_frames": int(scored[1]),
        **{f"{name}_s": float(value) for name, value in parts.items()},
    }


def peers(clip: pathlib.Path, folder: str, python: str | None) -> dict:
    every = make_clip.SECONDS * make_clip.RATE // PHOTOS
    commands = {}
    if shutil.which("ffmpeg"):
        thumbnail = ["ffmpeg", "-v", "error", "-i", str(clip), "-vf", f"thumbnail={every}"]
        commands["ffmpeg thumbnail"] = [*thumbnail, "-vsync", "0", f"{folder}/t%d.jpg"]
    if python:
        scenes = str(pathlib.Path(python).with_name("scenedetect"))
        save = ["save-images", f"--num-images={PHOTOS}"]
        commands["scenedetect"] = [scenes, "-i", str(clip), "-o", folder, "detect-adaptive", *save]
        os.makedirs(f"{folder}/katna")
        script = pathlib.Path(folder) / "run_katna.py"
        script.write_text(KATNA)
        commands["katna"] = [python, str(script), str(clip), f"{folder}/katna", str(PHOTOS)]
    found = {}
    for name, command in commands.items():
        seconds, text = timed(command)
        ok = seconds != float("inf")
        found[name] = {"seconds": round(seconds, 2)} if ok else {"failed": text}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", default=list(make_clip.CLIPS), metavar="CLIP")
    parser.add_argument("--peers", help="the Python that has katna and scenedetect")
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    path = machine.RESULTS / "end_to_end.json"
    figures = json.loads(path.read_text())["clips"] if path.exists() else {}
    for name in arguments.clips:
        clip = make_clip.ensure(name)
        with tempfile.TemporaryDirectory() as folder:
            row = {"carjax": carjax(clip, folder, arguments.turns)}
            row |= peers(clip, folder, arguments.peers)
        row["mbit"] = round(clip.stat().st_size * 8 / make_clip.SECONDS / 1e6, 2)
        figures[name] = figures.get(name, {}) | row
        own = row["carjax"]["seconds"]
        print(name, row["carjax"])
        for peer, result in row.items():
            if isinstance(result, dict) and peer != "carjax":
                ratio = f"{result['seconds'] / own:.2f} of carjax" if "seconds" in result else ""
                print(f"  {peer}: {result} {ratio}")
    machine.save(
        "end_to_end.json", {"command": "python benchmarks/end_to_end.py", "clips": figures}
    )


if __name__ == "__main__":
    main()
