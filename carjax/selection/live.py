"""Choosing photos while a video is still being filmed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np
import numpy.typing as npt

from carjax import scoring, selection
from carjax.errors import CarjaxError, NoCarError
from carjax.model import Model
from carjax.selection import Selection, eligibility, smoothing
from carjax.table import ScoreTable, concatenate
from carjax.temporal import streaming
from carjax.temporal.motion import Motion


class LiveSelection:
    """Takes the frames of a live video, and says what is chosen of them so far.

    Azimuths are smoothed with a fixed lag (`streaming`): a frame is known `lag` frames after it was
    pushed. Of the frames that are known, the choice is that of `selection.select_photos` with
    `policy="entropy"` and `view_policy="first"`: a view is filled by the first frame that passes.

    Attributes:
        images: index of a frame → uint8 [H, W, 3] RGB, of the frames that are chosen now, of their
            alternatives, and of those that wait. No other picture is kept.

    Example:
        >>> def photos_of(camera, model):  # camera: (uint8 [B, H, W, 3], float [B]) again and again
        ...     live = LiveSelection(model)
        ...     for frames, time_s in camera:
        ...         chosen = live.push(frames, time_s)
        ...         if chosen is not None and not chosen.orientation.missing:
        ...             break
        ...     return {name: live.images[i] for name, i in selection.chosen_frames(chosen).items()}
    """

    def __init__(
        self,
        model: Model,
        *,
        lag: int = 8,
        attributes: Sequence[str] | None = None,
        views: int = 8,
        view_threshold: float = selection.VIEW_THRESHOLD,
        batch_size: int = 1,
        motion: Motion | None = None,
    ) -> None:
        """Nothing is compiled before the first frame.

        Args:
            model: from `carjax.load_model`; it must have an orientation.
            lag: how many frames later a frame is known.
            attributes: names to choose for; None: all of the model.
            views: 8 or 4.
            view_threshold: mass that fills a view.
            batch_size: frames that are scored at once; `push` may be given any number.
            motion: how cameras move; None: `Motion()`.

        Raises:
            ValueError: the lag is negative.
            UsageError: no such attribute, or other views.
        """
        selection.wanted_names(model.spec.schema, attributes, views)
        self.images: dict[int, np.ndarray] = {}
        self._model = model
        self._scorer = scoring.kept_scorer(model, batch_size)
        self._select = functools.partial(
            selection.select_photos,
            attributes=attributes,
            policy="entropy",
            view_policy="first",
            views=views,
            view_threshold=view_threshold,
            unknown_above=model.spec.unknown_above,
        )
        self._stream = streaming.Stream(lag, motion)
        self._car_seen = False
        self._last_s = -np.inf
        self._tables: list[ScoreTable] = []
        self._densities: list[np.ndarray] = []

    def push(self, frames: np.ndarray, time_s: npt.ArrayLike) -> Selection | None:
        """Takes the next frames and returns what is chosen now.

        Args:
            frames: uint8 [B, H, W, 3] RGB.
            time_s: float [B]; increasing, in seconds.

        Returns:
            The choice of the frames that are known; None while none shows a car.

        Raises:
            CarjaxError: a frame does not lie after the one before it, frames and times are not
                equally many, or the video was finished; none of them is taken.
        """
        if self._stream.drained:
            raise CarjaxError("the video was finished: make another LiveSelection for the next")
        frames, times = np.asarray(frames), np.asarray(time_s, np.float64)
        if times.shape != (len(frames),):
            raise CarjaxError(f"{len(frames)} frames need as many times, not {times.shape}")
        before = np.append(self._last_s, times[:-1])
        if not (np.isfinite(times) & (times > before)).all():
            at = int(np.argmin(np.isfinite(times) & (times > before)))
            raise CarjaxError(f"a frame at {times[at]} s came after one at {before[at]} s")
        index = self._stream.count + np.arange(len(frames))
        scores = scoring.to_host(self._scorer(frames))
        self._last_s = times[-1]
        table = scoring.to_table(scores, self._model.spec, index, times)
        informs = self._car_frames(table) & selection.sound_directions(table)
        density = selection.density_of(table, informs)
        for i, number in enumerate(index.tolist()):
            answer = self._stream.push(
                jax.tree.map(lambda x, i=i: x[i], density), float(times[i]), bool(informs[i])
            )
            if answer is not None:
                self._densities.append(np.asarray(answer.density))
            self.images[number] = frames[i].copy()  # the caller may use its array again
        self._tables.append(table)
        return self._choose()

    def _car_frames(self, table: ScoreTable) -> np.ndarray:
        """Which frames show a car, as far as those up to each of them can tell, bool [B]."""
        shows = np.zeros(len(table), bool)
        for i in range(len(table)):
            one = table.take(slice(i, i + 1))
            self._car_seen |= bool(eligibility.car_frames(one).any())
            shows[i] = eligibility.car_frames(one, seen=self._car_seen)[0]
        return shows

    def finish(self) -> Selection | None:
        """Returns the choice of all frames; the last ones are known now, too."""
        rest = self._stream.drain()
        if rest is not None:
            self._densities += list(np.asarray(rest.density))
        return self._choose()

    def _choose(self) -> Selection | None:
        known = len(self._densities)
        chosen = None
        if known:
            self._tables = [concatenate(self._tables)]
            table = self._tables[0].take(slice(known))
            if table.angular is not None:
                table = smoothing.with_density(table, np.stack(self._densities))
            try:
                chosen = self._select(table)
            except NoCarError:
                chosen = None
        kept = set(range(known, self._stream.count))
        if chosen is not None:
            kept |= set(selection.chosen_frames(chosen).values())
            kept |= selection.alternative_frames(chosen)
        self.images = {i: image for i, image in self.images.items() if i in kept}
        return chosen
