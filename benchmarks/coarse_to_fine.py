"""What coarse-to-fine sampling loses against scoring every frame.

    python benchmarks/coarse_to_fine.py [VIDEO …]

For each video, `--fps=auto` and `--fps=all`: frames scored, views filled, and the mean certainty of
the chosen photos (1 − H/log K of an attribute, the mass inside its bin of a view). The default is
the sample, the first of `make_clip.py`'s clips, and, with CARJAX_DATA, its videos. Writes
results/coarse_to_fine.json; videos that are not asked for keep their figures.
"""

import argparse
import json
import os
import pathlib

import machine
import make_clip
import numpy as np

from carjax import model as models
from carjax import runtime, scan, selection
from carjax.selection import smoothing


def chosen(model: models.Model, path: pathlib.Path, fps: str) -> dict:
    scored, source = scan.score_video(model, path, fps=fps)
    table = smoothing.smoothed(scored)
    picked = selection.select_photos(
        table, duration_s=source.info.duration_s, unknown_above=model.spec.unknown_above
    )
    views = [v.probability for v in picked.orientation.views.values() if v]
    attributes = [c.certainty for c in picked.attributes.values() if c.certainty is not None]
    return {
        "scored": len(table),
        "frames": source.info.frames,
        "views": [name for name, view in picked.orientation.views.items() if view],
        "attributes": round(float(np.mean(attributes)), 4),
        "mean_certainty": round(float(np.mean(attributes + views)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=pathlib.Path)
    videos = parser.parse_args().videos
    if not videos:
        videos = [make_clip.SAMPLE, make_clip.ensure("walk_5mbit.mp4")]
        if data := os.environ.get("CARJAX_DATA"):
            videos += sorted(pathlib.Path(data, "videos").glob("*.mp4"))
    runtime.set_up_jax()
    model = models.load()
    path = machine.RESULTS / "coarse_to_fine.json"
    figures = json.loads(path.read_text())["videos"] if path.exists() else {}
    for video in videos:
        auto, every = (chosen(model, video, fps) for fps in ("auto", "all"))
        figures[video.name] = row = {
            "all": every,
            "auto": auto,
            "fewer_frames": round(every["scored"] / auto["scored"], 1),
            "same_views": auto["views"] == every["views"],
            "certainty_change": round(auto["mean_certainty"] / every["mean_certainty"] - 1, 4),
        }
        print(video.name, {k: v for k, v in row.items() if k not in ("all", "auto")}, flush=True)
        machine.save(
            "coarse_to_fine.json",
            {"command": "python benchmarks/coarse_to_fine.py", "videos": figures},
        )


if __name__ == "__main__":
    main()
