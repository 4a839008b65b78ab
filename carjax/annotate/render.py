"""`annotated.mp4`: the video beside what was known after each of its frames."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from carjax import pictures, video
from carjax.annotate import layout
from carjax.annotate.encode import Mp4Writer
from carjax.annotate.running import State, states
from carjax.annotate.scene import Best, Moment, Scene, thumbnail_aspect
from carjax.errors import UsageError
from carjax.listing.photos import crop_area
from carjax.prefetch import prefetch
from carjax.selection import VIEW_THRESHOLD, eligibility, views_of, wanted_names
from carjax.table import ScoreTable, certainty
from carjax.wording import percent

# Where the choice needs the whole video, it is shown for this long after the last frame.
FINAL_S = 1.0
# Frames are decoded at about the size at which they are drawn.
_DECODED_SIDE = 640


def annotate(
    path: str | os.PathLike[str],
    table: ScoreTable,
    out: str | os.PathLike[str],
    *,
    attributes: Sequence[str],
    views: int = 8,
    view_threshold: float = VIEW_THRESHOLD,
    final: Mapping[str, Any] | None = None,
    final_name: str = "",
    redact: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    progress: Callable[[int], None] = lambda frames: None,
) -> None:
    """Writes an annotated video: strictly causal, it shows what the frames so far say.

    Args:
        path: the video.
        table: scores of all its frames.
        out: the MP4 file to write.
        attributes: names of those to show; one categorical one gives the article's layout.
        views: 8 or 4.
        view_threshold: mass that fills a view.
        final: the content of selection.json, if other policies chose than those of `running`; it
            is then shown for one more second at the end.
        final_name: what chose it, to label it with.
        redact: applied to every frame before anything is drawn.
        progress: called with the number of frames written so far.

    Raises:
        CarjaxError: the video cannot be read, or this build of FFmpeg has no H.264 encoder.
        OSError: the file cannot be written.
        UsageError: there is no such attribute, none to show, no scored frame, or other views.
    """
    if not wanted_names(table.schema, attributes, views) or not len(table):
        raise UsageError("annotate: there must be an attribute to show, and a scored frame")
    known = list(states(table, attributes=attributes, views=views, view_threshold=view_threshold))
    decoder = video.Decoder(path, fps="all", max_side=_DECODED_SIDE)
    frames = (
        video.Frame(frame.index, frame.time_s, redact(frame.image)) for frame in iter(decoder)
    )
    info = decoder.info
    with (
        Mp4Writer(out, *_size(info, table, attributes), info.average_rate) as writer,
        prefetch(frames, depth=4) as stream,
    ):
        pictures = moments(
            table, known, stream, info.width / info.height, attributes, final, final_name
        )
        for count, (canvas, time_s) in enumerate(pictures, 1):
            writer.write(canvas, time_s)
            progress(count)


def moments(
    table: ScoreTable,
    known: Sequence[State],
    frames: Iterable[video.Frame],
    aspect: float,
    attributes: Sequence[str],
    final: Mapping[str, Any] | None = None,
    final_name: str = "",
) -> Iterator[tuple[np.ndarray, float]]:
    """Yields the canvas of each frame and its time; the canvas is painted over by the next one.

    Args:
        table: scores of N frames.
        known: the state after each of them.
        frames: the same frames.
        aspect: width over height of the frames.
        attributes: names of those to show.
        final: as in `annotate`.
        final_name: as in `annotate`.
    """
    scene = _scene(table, known[0], aspect, attributes)
    album = _Album(table, known, scene, final)
    car = eligibility.car_frames(table)
    row = 0
    for frame in frames:
        if row == len(table) or frame.index != table.frame[row]:
            continue  # a frame that was not scored
        album.keep(row, frame.image)
        moment = _moment(frame, table, known[row], album, bool(car[row]))
        yield scene.draw(moment), frame.time_s
        row += 1
    if final is None or not row:
        return
    step = float(np.median(np.diff(table.time_s))) if len(table) > 1 else FINAL_S
    chosen = album.final(final)
    for k in range(1, max(1, round(FINAL_S / step)) + 1):
        last = Moment(**{**vars(moment), **chosen, "final": final_name})
        yield scene.draw(last), frame.time_s + k * step


def _size(info: video.VideoInfo, table: ScoreTable, attributes: Sequence[str]) -> tuple[int, int]:
    where = _layout(table, info.width / info.height, attributes)
    return where.width, where.height


def _layout(table: ScoreTable, aspect: float, attributes: Sequence[str]) -> layout.Layout:
    names = [a.name for a in table.categorical if a.name in attributes]
    directed = table.angular is not None and table.angular.name in attributes
    return layout.arrange(aspect, names, directed)


def _scene(table: ScoreTable, first: State, aspect: float, attributes: Sequence[str]) -> Scene:
    return Scene(
        _layout(table, aspect, attributes),
        {a.name: a for a in table.categorical},
        tuple(first.views),
        thumbnail_aspect(aspect),
    )


def _moment(
    frame: video.Frame, table: ScoreTable, state: State, album: _Album, car: bool
) -> Moment:
    row = state.row
    box, azimuth = table.box[row], float(table.azimuth_deg[row])
    return Moment(
        image=frame.image,
        index=frame.index,
        time_s=frame.time_s,
        box=box if car and np.isfinite(box).all() else None,
        azimuth_deg=azimuth if car and np.isfinite(azimuth) else None,
        kappa=float(np.nan_to_num(table.kappa[row])),
        probs=state.probs,
        best={name: album.best(name, best) for name, best in state.best.items()},
        views={name: album.view(best) for name, best in state.views.items()},
        coverage=state.coverage,
    )


class _Album:
    """Small pictures of the frames that are chosen at any time, and of no others."""

    def __init__(
        self,
        table: ScoreTable,
        known: Sequence[State],
        scene: Scene,
        final: Mapping[str, Any] | None,
    ):
        self._table = table
        self._classes = {a.name: a for a in table.categorical}
        self._sizes = {p.name: (p.photo.w, p.photo.h) for p in scene.layout.panels}
        # None where the layout has no ring of views.
        views = scene.ring.views.values() if scene.ring else ()
        self._view_size = next(((r.w, r.h) for r in views), None)
        self._rows = {int(frame): row for row, frame in enumerate(table.frame)}
        self._best: dict[tuple[str, int], Best | None] = {
            (name, row): None
            for state in known
            for name, row in state.best.items()
            if row is not None
        }
        self._views: dict[int, np.ndarray | None] = {
            row: None for state in known for row in state.views.values() if row is not None
        }
        self._chosen_best, self._chosen_views = self._final_rows(final or {})
        self._best |= {(n, row): None for n, row in self._chosen_best.items() if row is not None}
        self._views |= {row: None for row in self._chosen_views.values() if row is not None}
        self._wanted: dict[int, list[str]] = {}
        for name, row in self._best:
            self._wanted.setdefault(row, []).append(name)

    def _final_rows(
        self, final: Mapping[str, Any]
    ) -> tuple[dict[str, int | None], dict[str, int | None]]:
        def row(choice: Mapping[str, Any] | None) -> int | None:
            return None if not choice or "frame" not in choice else self._rows[choice["frame"]]

        chosen = {
            name: row(choice)
            for name, choice in final.get("attributes", {}).items()
            if name in self._sizes
        }
        views = views_of(final) if self._view_size else {}
        return chosen, {name: row(view) for name, view in views.items()}

    def keep(self, row: int, image: np.ndarray) -> None:
        """Keeps what is needed of a frame."""
        for name in self._wanted.get(row, ()):
            attribute = self._classes[name]
            probs = self._table.probs[name][row]
            self._best[name, row] = Best(
                self._cut(row, image, self._sizes[name]),
                attribute.classes[int(np.argmax(probs))],
                float(certainty(self._table.entropy[name][row], len(attribute.classes))),
            )
        if row in self._views and self._view_size:
            self._views[row] = self._cut(row, image, self._view_size)

    def best(self, name: str, row: int | None) -> Best | None:
        return None if row is None else self._best[name, row]

    def view(self, row: int | None) -> np.ndarray | None:
        return None if row is None else self._views[row]

    def final(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a moment that show the final choice."""
        best = {}
        for name, row in self._chosen_best.items():
            best[name] = found = self.best(name, row)
            choice = content["attributes"][name]
            if found is not None:
                said = {"value": choice["value"] or choice["reason"], "strength": _strength(choice)}
                best[name] = dataclasses.replace(found, **said)
        return {
            "best": best,
            "views": {name: self.view(row) for name, row in self._chosen_views.items()},
        }

    def _cut(self, row: int, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        height, width = image.shape[:2]
        aspect = size[0] / size[1]
        if abs(width / height / aspect - 1) > 0.02:
            box = self._table.box[row]
            box = box if np.isfinite(box).all() else np.array([0.0, 0.0, 1.0, 1.0])
            area = crop_area(box, width, height, aspect, cut=True)
            image = image if area is None else area.of(image)
        return pictures.resized(image, size[1], size[0], cubic=True)


def _strength(choice: Mapping[str, Any]) -> str:
    """What is told of a final choice where its certainty is that of another value, else ''."""
    if choice["value"] is None:
        return f"{choice['nearest']}: {percent(choice['probability'])}"
    return f"shows it {percent(choice['probability'])}" if "known" in choice else ""
