"""Photos of a live video, against selection on tables that know just as much."""

import pathlib

import jax
import numpy as np
import pytest

import carjax
from carjax import scoring, selection, video
from carjax.selection import live, smoothing
from carjax.temporal import circular_filter

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"
LAG, COUNT, BATCH = 4, 30, 6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return carjax.load_model()


@pytest.fixture(scope="module")
def filmed():
    frames = list(video.Decoder(SAMPLE, fps=4.0, max_side=480))[:COUNT]
    return np.stack([f.image for f in frames]), np.array([f.time_s for f in frames])


@pytest.fixture(scope="module")
def followed(model, filmed):
    """The chooser, and the choice and the pictures after every push, the last after the end."""
    chooser = live.LiveSelection(model, lag=LAG, batch_size=BATCH)
    states = []
    for start in range(0, COUNT, BATCH):
        rows = slice(start, start + BATCH)
        states.append((chooser.push(filmed[0][rows], filmed[1][rows]), dict(chooser.images)))
    states.append((chooser.finish(), dict(chooser.images)))
    return states


def test_each_state_is_the_selection_of_the_frames_that_are_known(model, filmed, followed):
    scores = scoring.to_host(scoring.Scorer(model, BATCH)(filmed[0]))
    table = scoring.to_table(scores, model.spec, np.arange(COUNT), filmed[1])
    density = selection.density_of(table, np.ones(COUNT, bool))
    rows = []
    for t in range(COUNT):
        known = min(t + LAG + 1, COUNT)
        part = jax.tree.map(lambda x, n=known: x[:n], density)
        rows.append(np.asarray(circular_filter.smooth(part, filmed[1][:known]).density)[t])
    smooth = smoothing.with_density(table, np.stack(rows))
    for pushed, (chosen, _) in enumerate(followed, 1):
        known = COUNT if pushed == len(followed) else pushed * BATCH - LAG
        expected = selection.select_photos(
            smooth.take(slice(known)), policy="entropy", view_policy="first"
        )
        assert selection.chosen_frames(chosen) == selection.chosen_frames(expected)
        for name, view in expected.orientation.views.items():
            if view is not None:
                got = chosen.orientation.views[name]
                assert got.azimuth_deg == pytest.approx(view.azimuth_deg, abs=0.05)


def test_pictures_of_what_is_chosen_are_at_hand_and_few_others(filmed, followed):
    for chosen, images in followed:
        frames = set(selection.chosen_frames(chosen).values())
        assert frames <= set(images)
        assert len(images) <= len(frames | selection.alternative_frames(chosen)) + LAG
        for i in frames:
            np.testing.assert_array_equal(images[i], filmed[0][i])


def test_a_frame_before_the_last_is_refused(model, filmed):
    chooser = live.LiveSelection(model, batch_size=BATCH)
    chooser.push(filmed[0][:1], [1.0])
    with pytest.raises(carjax.errors.CarjaxError, match="came after"):
        chooser.push(filmed[0][1:2], [0.5])
