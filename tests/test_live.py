"""Photos of a live video, against selection on tables that know just as much."""

import pathlib

import jax
import numpy as np
import pytest
from score_tables import make_table

import carjax
from carjax import scoring, selection, video
from carjax.errors import CarjaxError, UsageError
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
            smooth.take(slice(known)),
            policy="entropy",
            view_policy="first",
            unknown_above=model.spec.unknown_above,
        )
        for name, choice in expected.attributes.items():
            assert (chosen.attributes[name].value, chosen.attributes[name].reason) == (
                choice.value, choice.reason,
            )  # fmt: skip
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
    for times in ([0.5], [1.5, 1.5], [1.5, 1.2], [1.5, np.nan]):
        with pytest.raises(carjax.errors.CarjaxError, match="came after"):
            chooser.push(filmed[0][1 : 1 + len(times)], times)
    with pytest.raises(carjax.errors.CarjaxError, match="2 frames need as many times"):
        chooser.push(filmed[0][1:3], [1.5])
    with pytest.raises(ValueError, match="uint8"):
        chooser.push(filmed[0][1:2].astype(np.float32), [1.5])
    chooser.push(filmed[0][1:2], [1.5])  # what was refused left nothing behind
    assert set(chooser.images) == {0, 1}
    assert chooser.finish() is not None


def test_what_is_finished_stays_so(model, filmed):
    images, time_s = filmed
    chooser = live.LiveSelection(model, lag=2, batch_size=BATCH)
    chooser.push(list(images[:BATCH]), time_s[:BATCH])
    chosen = chooser.finish()
    again = chooser.finish()
    assert selection.chosen_frames(again) == selection.chosen_frames(chosen)
    assert len(chooser._densities) == BATCH
    with pytest.raises(CarjaxError, match="was finished"):
        chooser.push(images[BATCH:], time_s[BATCH:])


def test_what_cannot_be_chosen_is_refused_before_anything_is_computed(model):
    for wrong in ({"attributes": ["wheels"]}, {"attributes": "doors"}, {"views": 5}):
        with pytest.raises(UsageError):
            live.LiveSelection(model, **wrong)


def test_the_callers_array_may_be_used_again_and_batches_change_nothing(model, filmed):
    by_batch = {}
    for batch in (1, 4):
        chooser = live.LiveSelection(model, lag=2, batch_size=batch)
        array = np.empty_like(filmed[0][:batch])
        for start in range(0, 8, batch):
            array[:] = filmed[0][start : start + batch]
            chooser.push(array, filmed[1][start : start + batch])
        for i, image in chooser.images.items():
            np.testing.assert_array_equal(image, filmed[0][i])
        by_batch[batch] = selection.chosen_frames(chooser.finish())
    assert by_batch[1] == by_batch[4]


def test_a_frame_informs_once_a_car_was_seen(model):
    """Whatever batches the frames come in: 0.1 shows a car only after a frame with 0.5."""
    table = make_table((), count=3, car_probability=np.array([0.1, 0.5, 0.1]))
    whole = live.LiveSelection(model)._car_frames(table)
    one_by_one = live.LiveSelection(model)
    parts = [one_by_one._car_frames(table.take(slice(i, i + 1)))[0] for i in range(3)]
    assert whole.tolist() == parts == [False, True, True]
