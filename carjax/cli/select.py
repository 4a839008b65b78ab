"""`carjax select VIDEO --out=DIR`: the best photos of a walk-around video, and a report."""

from __future__ import annotations

import pathlib
import sys
import time
import webbrowser
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from carjax import pipeline, progress, result_folder, runtime, scan, video
from carjax.cli import common
from carjax.errors import UsageError
from carjax.files import readable
from carjax.listing import known, photos, plan, redaction
from carjax.selection import POLICIES, VIEW_POLICIES, VIEW_THRESHOLD
from carjax.stopwatch import Stopwatch
from carjax.wording import degrees, percent

SYNOPSIS = """usage: carjax select VIDEO --out=DIR

Chooses the photo that shows each attribute best and one photo per view around the car; writes
DIR/photos/*.jpg, DIR/report.html, DIR/selection.json and DIR/scores.parquet.
Exit status: 0 done, 1 the input or the run failed, 2 wrong usage, 3 no car in the video."""


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "folder to write", flag_values=values)
    flags.DEFINE_list(
        "attributes", None, "only these: type,brand,doors,seats,orientation", flag_values=values
    )
    flags.DEFINE_enum(
        "policy",
        "consensus",
        list(POLICIES),
        "agree with the whole video, or plain lowest entropy",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "view_policy",
        "best",
        list(VIEW_POLICIES),
        "a view gets the frame of highest mass, or the first to pass",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "temporal",
        None,
        list(pipeline.TEMPORAL),
        "smoothing over time (filter; none if view_policy=first)",
        flag_values=values,
    )
    flags.DEFINE_string(
        "temporal_model", None, "a sequence head, for --temporal=model", flag_values=values
    )
    flags.DEFINE_float(
        "view_threshold", VIEW_THRESHOLD, "mass that fills a view, 0 to 1", flag_values=values
    )
    flags.DEFINE_integer("views", 8, "views around the car: 8 or 4", flag_values=values)
    flags.DEFINE_string(
        "fps", "auto", "frames a second: auto (coarse to fine), all, N", flag_values=values
    )
    common.define_model(values)
    flags.DEFINE_list("known", [], "what the car is: brand:BMW,doors:5", flag_values=values)
    flags.DEFINE_enum(
        "crop", "none", list(photos.CROPS), "cut photos to the car", flag_values=values
    )
    flags.DEFINE_enum("format", "jpg", list(photos.FORMATS), "photo files", flag_values=values)
    flags.DEFINE_multi_string(
        "redact",
        None,
        "x,y,w,h to blur, in fractions (all up to 1) or pixels; repeat it",
        flag_values=values,
    )
    flags.DEFINE_string(
        "annotate", "none", "annotated.mp4: all, or one attribute; scores all", flag_values=values
    )
    flags.DEFINE_bool("strip_paths", False, "name files without folders", flag_values=values)
    flags.DEFINE_bool("plan", False, "print which shots are still missing", flag_values=values)
    flags.DEFINE_bool("show", False, "open the report in a browser", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "write into a folder of other files", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    words = common.parse(values, argv, SYNOPSIS)
    if words == [""]:
        raise UsageError("the name of the video is empty: carjax select VIDEO --out=DIR")
    if len(words) != 1:
        raise UsageError(f"one video is needed, {len(words)} given: carjax select VIDEO --out=DIR")
    if not values.out:
        raise UsageError("carjax select needs --out=DIR")
    if values.views not in (4, 8):
        raise UsageError(f"--views is {values.views}; it must be 8 or 4")
    if not 0 <= values.view_threshold < 1:
        raise UsageError(f"--view_threshold is {values.view_threshold}; it must be in [0, 1)")
    annotate = None if values.annotate == "none" else values.annotate
    if annotate and values["fps"].present and values.fps != "all":
        raise UsageError(f"--annotate scores every frame: leave out --fps={values.fps}")
    options = pipeline.Options(
        attributes=tuple(values.attributes) if values.attributes else None,
        policy=values.policy,
        view_policy=values.view_policy,
        view_threshold=values.view_threshold,
        views=values.views,
        fps="all" if annotate else video.parse_fps(values.fps),
        known=known.parse(values.known),
        crop=values.crop,
        format=values.format,
        redact=tuple(redaction.parse(text) for text in values.redact or ()),
        strip_paths=values.strip_paths,
        annotate=annotate,
        temporal="model" if values.temporal_model and not values.temporal else values.temporal,
        temporal_model=values.temporal_model,
    )
    # Everything that can be wrong with the input is found before JAX is imported.
    out = pathlib.Path(values.out)
    info = video.probe(words[0])
    for box in options.redact:
        redaction.fractions(box, info.width, info.height)
    result_folder.check_apart(out, words[0])
    result_folder.check_out(out, values.overwrite)

    watch = Stopwatch()
    start = time.perf_counter()
    ahead = scan.Ahead(words[0], options.fps)
    console = Console(stderr=True)
    console.print(
        f"{readable(words[0])}: {info.duration_s:.1f} s, {info.width}×{info.height}, "
        f"{info.average_rate:.4g} frames a second",
        highlight=False,
        markup=False,
    )
    with watch("load"):
        runtime.set_up_jax()
        from carjax import model as models

        model = models.load(values.model, backbone_weights=values.backbone_weights)
        pipeline.check_options(model, options)
        model = common.localised(model, values.localise)
    with progress.bars(console=console) as bar:
        expected = scan.expected_frames(info, options.fps, seeks=ahead.seeks)
        scored = 0

        def on_scored(frames: int) -> None:
            nonlocal scored
            scored = frames
            bar("scoring", frames, expected, "frames")

        def on_drawn(frames: int) -> None:
            # The final choice takes some more.
            bar("drawing", frames, max(frames, scored), "frames")

        on_scored(0)
        content = pipeline.select(
            model,
            words[0],
            out,
            options,
            overwrite=values.overwrite,
            ahead=ahead,
            progress=on_scored,
            watch=watch,
            drawing=on_drawn,
        )
        bar("scoring", scored, content["video"]["scored_frames"], "frames")
    console.print(
        f"{content['video']['scored_frames']} of {content['video']['frames']} frames scored; "
        f"{time.perf_counter() - start:.2f} s: {watch}",
        highlight=False,
        markup=False,
    )
    for warning in content["video"].get("warnings", ()):
        print(f"carjax: {warning}", file=sys.stderr)
    show(content, out)
    if values.plan:
        show_plan(content)
    if values.show:
        webbrowser.open((out / result_folder.REPORT).absolute().as_uri())
    return 0


def _caveat(choice: dict[str, Any]) -> str:
    """What to know of a photo: that no frame showed the whole car, or the listing says other."""
    remarks = ["part of the car"] if choice.get("content") == "part" else []
    # A class that the model does not know is the reason already.
    if choice.get("known", {}).get("verdict") != "outside":
        remarks += filter(None, [known.notice(choice)])
    return f" ({'; '.join(remarks)})" if remarks else ""


def show_plan(content: dict[str, Any]) -> None:
    """Prints which shots are still missing."""
    lines = plan.shots(content)
    print("\nstill missing:" if lines else "\nno shot is missing")
    for line in lines:
        print(f"  {line}")


def show(content: dict[str, Any], out: pathlib.Path) -> None:
    """Prints what was chosen, and where the report is."""
    table = Table(box=None, pad_edge=False)
    for heading in ("photo", "shows", "sure", "time", "file"):
        table.add_column(
            heading,
            justify="right" if heading in ("sure", "time") else "left",
            no_wrap=heading == "file",
            overflow="ignore" if heading == "file" else "fold",
        )
    for name, choice in content["attributes"].items():
        if "photo" not in choice:
            table.add_row(name, choice["reason"], "", "", "")
        else:
            table.add_row(
                name,
                (choice["value"] or choice["reason"]) + _caveat(choice),
                percent(known.sureness(choice)),
                f"{choice['time_s']:.1f} s",
                choice["photo"],
            )
    for name, view in content.get("orientation", {}).get("views", {}).items():
        if view is None:
            passed = plan.passes(content["orientation"], name)
            table.add_row(name, "no clear frame" if passed else "not in the video", "", "", "")
        else:
            table.add_row(
                name,
                degrees(view["azimuth_deg"]) + _caveat(view),
                percent(view["probability"]),
                f"{view['time_s']:.1f} s",
                view["photo"],
            )
    console = Console(markup=False)  # what the user states of the car is text
    console.print(table)
    written = {
        "report": out / result_folder.REPORT,
        "annotated video": out / result_folder.ANNOTATED,
    }
    print()
    for what, path in written.items():
        if path.is_file():
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
