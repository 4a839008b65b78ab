"""The annotated picture: draws a running state, and of it only what has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from carjax import pictures
from carjax.annotate import bars, layout, paint, ring
from carjax.annotate.layout import Layout, Panel, Rect
from carjax.attributes import Categorical
from carjax.wording import clock, degrees, label, percent


@dataclasses.dataclass(frozen=True, eq=False)
class Best:
    """The best frame of an attribute.

    Attributes:
        photo: uint8 [h, w, 3], of the size of the panel's photo.
        value: what it shows.
        certainty: in [0, 1].
        strength: how well the photo shows the value, in words; '' where that is the certainty.
    """

    photo: np.ndarray
    value: str
    certainty: float
    strength: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """All that is drawn of one moment.

    Attributes:
        image: uint8 [H, W, 3]; the current frame, of any size.
        index: its number.
        time_s: its time in seconds.
        box: float [4]; the car's box as fractions of the frame, or None without a car.
        azimuth_deg: its direction in degrees, or None.
        kappa: the concentration of the direction.
        probs: attribute name → float [K], averaged up to now, or None.
        best: attribute name → the best frame, or None. An equal object is not drawn again.
        views: name → thumbnail uint8 [h, w, 3], or None. An equal object is not drawn again.
        coverage: float [360], or None.
        final: what chose the final photos, once they are shown; '' while the video runs.
    """

    image: np.ndarray
    index: int
    time_s: float
    box: np.ndarray | None
    azimuth_deg: float | None
    kappa: float
    probs: Mapping[str, np.ndarray | None]
    best: Mapping[str, Best | None]
    views: Mapping[str, np.ndarray | None]
    coverage: np.ndarray | None
    final: str = ""


class Scene:
    """One canvas, drawn again and again.

    Args:
        where: the layout.
        attributes: the categorical attributes of the layout's panels.
        views: names of the views; empty without directions.
        aspect: width over height of the views' thumbnails.
    """

    def __init__(
        self,
        where: Layout,
        attributes: Mapping[str, Categorical],
        views: tuple[str, ...],
        aspect: float,
    ):
        self.layout = where
        self.ring = ring.arrange(where.ring, views, aspect) if where.ring else None
        self._attributes = attributes
        self._canvas = np.full((where.height, where.width, 3), paint.PAGE, np.uint8)
        self._shown: dict[object, object] = {}
        self._map: np.ndarray = np.zeros((0, 0, 3), np.uint8)
        self._places = {
            p.name: bars.places(attributes[p.name].classes, p.bars) for p in where.panels
        }
        self._labels = {
            name: bars.label_width(attributes[name].classes, places[0])
            for name, places in self._places.items()
        }
        self._headings()

    def draw(self, moment: Moment) -> np.ndarray:
        """Draws a moment; returns the canvas, uint8 [H, W, 3], which the next call paints over."""
        self._draw_frame(moment)
        for panel in self.layout.panels:
            self._draw_bars(panel, moment.probs[panel.name])
            self._draw_best(panel, moment.best[panel.name])
        if self.ring is not None:
            self._draw_ring(self.ring, moment)
        if self._changed("final", moment.final):
            self._draw_final(moment.final)
        return self._canvas

    def _changed(self, key: object, value: object) -> bool:
        """Whether this differs from what stands there, which it now is."""
        before = self._shown.get(key, self)
        self._shown[key] = value
        drawn = np.ndarray, Best
        if isinstance(before, drawn) or isinstance(value, drawn):
            return before is not value
        return before != value

    # --- what stays --------------------------------------------------------------------------

    def _headings(self) -> None:
        above = self.layout.frame.y - 14
        paint.write(self._canvas, self.layout.frame.x, above, "Now", 13, paint.MUTED)
        self._draw_final("")
        if self.ring is not None and self.layout.ring is not None:
            area = self.layout.ring
            y = area.y - 14
            x = area.x + area.w
            for text, colour in (("this frame", paint.RED), ("coverage so far", paint.BLUE)):
                paint.write(self._canvas, x, y, text, 13, paint.MUTED, align="right")
                x -= paint.text_width(text, 13) + 8
                paint.stroke(self._canvas, np.array([[x - 16, y - 4], [x, y - 4]]), colour, 3)
                x -= 34
            paint.write(self._canvas, area.x, y, "Around the car", 13, paint.MUTED)
        for panel in self.layout.panels:
            bars.heading(self._canvas, panel.bars, label(panel.name))

    def _draw_final(self, final: str) -> None:
        if not self.layout.panels:
            if final:
                frame = self.layout.frame
                text = f"Final choice · {final}"
                x = frame.x + frame.w
                paint.write(self._canvas, x, frame.y - 14, text, 13, paint.BLUE, align="right")
            return
        first = self.layout.panels[0]
        y = first.bars.y - 14
        wide = first.photo.x + first.photo.w - first.bars.x
        paint.clear(self._canvas, Rect(first.bars.x, y - 13, wide, 18))
        paint.write(self._canvas, first.bars.x, y, "Average so far", 13, paint.MUTED)
        text = f"Final choice · {final}" if final else "Best frame so far"
        colour = paint.BLUE if final else paint.MUTED
        paint.write(self._canvas, first.photo.x, y, text, 13, colour)

    # --- what changes ------------------------------------------------------------------------

    def _draw_frame(self, moment: Moment) -> None:
        place = self.layout.frame
        if self._changed("frame", moment.image):
            picture = pictures.resized(moment.image, place.h, place.w, cubic=True)
            area = self._canvas[place.rows, place.columns]
            area[...] = picture
            if moment.box is not None:
                left, top, right, bottom = moment.box * [place.w, place.h, place.w, place.h]
                corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
                corners = np.clip(corners, 1, [place.w - 2, place.h - 2])
                paint.stroke(area, corners, paint.TEXT, 2, closed=True)
        y = place.y + place.h + 8
        line = Rect(place.x, y, place.w, 20)
        direction = (
            "" if moment.azimuth_deg is None or self.ring is None
            else degrees(moment.azimuth_deg)
        )  # fmt: skip
        shown = (clock(moment.time_s), moment.index, direction)
        if self._changed("caption", shown):
            paint.clear(self._canvas, line)
            paint.write(self._canvas, line.x, y + 14, shown[0], 13, paint.TEXT, paint.STRONG)
            x = line.x + paint.text_width(shown[0], 13, paint.STRONG) + 10
            paint.write(self._canvas, x, y + 14, f"frame {moment.index}", 13, paint.MUTED)
            right = line.x + line.w
            paint.write(self._canvas, right, y + 14, direction, 13, paint.RED, align="right")

    def _draw_bars(self, panel: Panel, probs: np.ndarray | None) -> None:
        classes = self._attributes[panel.name].classes
        for i, (place, line) in enumerate(
            zip(self._places[panel.name], bars.lines(classes, probs), strict=True)
        ):
            if self._changed((panel.name, i), line):
                bars.draw_line(self._canvas, place, line, self._labels[panel.name])

    def _draw_best(self, panel: Panel, best: Best | None) -> None:
        if not self._changed(("best", panel.name), best):
            return
        place = panel.photo
        if best is None:
            self._canvas[place.rows, place.columns] = paint.SUNK
            return
        self._canvas[place.rows, place.columns] = best.photo
        foot = Rect(place.x, place.y + place.h - 26, place.w, 26)
        paint.scrim(self._canvas, foot)
        y = foot.y + 18
        right = best.strength or f"{percent(best.certainty)} certain"
        taken = paint.text_width(right, 13)
        name = paint.fitted(best.value, 14, place.w - taken - 30, paint.STRONG)
        paint.write(self._canvas, place.x + 10, y, name, 14, paint.TEXT, paint.STRONG)
        paint.write(self._canvas, place.x + place.w - 10, y, right, 13, paint.TEXT, align="right")

    def _draw_ring(self, where: ring.Ring, moment: Moment) -> None:
        found = tuple(name for name, photo in moment.views.items() if photo is not None)
        if self._changed("base", found):
            ring.draw_base(self._canvas, where, found)
            self._map = self._canvas[where.map.rows, where.map.columns].copy()
        else:
            self._canvas[where.map.rows, where.map.columns] = self._map
        ring.draw_map(self._canvas, where, moment.coverage, moment.azimuth_deg, moment.kappa)
        for name, photo in moment.views.items():
            if self._changed(("view", name), photo):
                ring.draw_view(self._canvas, where.views[name], name, photo)


def thumbnail_aspect(aspect: float) -> float:
    """Width over height of the thumbnails of a video's frames."""
    return layout.WIDE if aspect >= 1.5 else 4 / 3
