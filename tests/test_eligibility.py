"""Which frames are refused: empty, cut off, dark, of another car; and what is left if all are."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import make_table
from test_selection import walk

from carjax import selection
from carjax.errors import NoCarError
from carjax.selection import eligibility, select_photos

WHOLE, PART, NONE = [0.9, 0.08, 0.02], [0.1, 0.85, 0.05], [0.02, 0.08, 0.9]


def with_content(table, rows):
    """The table with (frames, probabilities) told; all other frames show the whole car."""
    probs = np.tile(np.array(WHOLE, np.float32), (len(table), 1))
    for index, row in rows:
        probs[index] = row
    return dataclasses.replace(table, content_probs=probs)


def test_frames_without_a_car_are_no_car_frames_whatever_imagenet_says():
    table = with_content(make_table(count=20), [(np.arange(5, 9), NONE), (12, [np.nan] * 3)])
    unfit = np.flatnonzero(~eligibility.car_frames(table)).tolist()
    assert unfit == [5, 6, 7, 8, 12]
    low = dataclasses.replace(table, car_probability=np.full(20, 0.01, np.float32))
    assert not eligibility.car_frames(low).any()


def test_a_video_without_a_car_says_what_is_missing():
    table = with_content(make_table(count=9), [(np.arange(9), NONE)])
    with pytest.raises(NoCarError, match="no car found in 9 frames: none shows a car") as error:
        select_photos(table)
    assert error.value.status == 3


def test_parts_neither_vote_nor_win_where_the_whole_car_is_seen():
    probs = np.tile([0.02, 0.03, 0.1, 0.85], (40, 1))
    probs[10:36] = [0.999, 0.001, 0, 0]  # close-ups, which are sure and wrong, and many
    table = with_content(make_table(probs={"doors": probs}), [(np.arange(10, 36), PART)])
    doors = select_photos(table).attributes["doors"]
    assert (doors.value, doors.content) == ("5", "whole")
    assert doors.frame not in range(10, 36)
    assert all(a.frame not in range(10, 36) for a in doors.alternatives)


def test_a_video_of_close_ups_keeps_its_best_and_says_so():
    table = with_content(walk(), [(np.arange(180), PART)])
    got, want = select_photos(table), select_photos(walk())
    assert got.attributes["doors"].content == "part"
    assert got.attributes["doors"].frame == want.attributes["doors"].frame
    views = [v for v in got.orientation.views.values() if v]
    assert {v.content for v in views} == {"part"}
    assert selection.chosen_frames(got) == selection.chosen_frames(want)
    assert want.attributes["doors"].content is None


def test_a_view_takes_a_part_only_where_no_whole_car_fills_it():
    # Two frames to each view; the earlier is cut, and of the rear so is the later.
    azimuth = np.repeat(np.arange(8) * 45.0, 2)
    cut = np.append(np.arange(0, 16, 2), 9)
    table = with_content(make_table(azimuth_deg=azimuth), [(cut, PART)])
    views = select_photos(table).orientation.views
    for k, view in enumerate(views.values()):
        assert (view.frame, view.content) == ((8, "part") if k == 4 else (2 * k + 1, "whole"))


def test_sharp_close_ups_do_not_make_the_whole_car_look_blurred():
    part = np.arange(60) % 3 > 0
    table = make_table(count=60, sharpness=np.where(part, 0.8, 0.4))
    assert not eligibility.eligible_frames(table)[~part].any()
    table = with_content(table, [(part, PART)])
    assert eligibility.eligible_frames(table).all()


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_frames_too_dark_for_their_video_are_refused(level):
    colour = np.tile(np.array([0.5, 0.45, 0.4], np.float32), (40, 1)) * np.float32(level)
    colour[20:28] *= 0.6  # the shaded side
    colour[30:36] *= 0.2
    table = make_table(count=40, car_colour=colour)
    unfit = np.flatnonzero(~eligibility.eligible_frames(table))
    assert unfit.tolist() == list(range(30, 36))


@pytest.mark.parametrize(("level", "dark"), [(0.11, False), (0.09, True)])
def test_a_video_is_dark_where_its_best_frames_are(level, dark):
    colour = np.full((40, 3), level, np.float32)
    colour[:10] = 0.05  # the shaded side
    assert eligibility.is_dark(make_table(count=40, car_colour=colour)) is dark
    assert not eligibility.is_dark(make_table(count=40, car_colour=None))
    nowhere = make_table(count=40, car_colour=colour, car_probability=np.zeros(40))
    assert not eligibility.is_dark(nowhere)


def test_another_car_is_not_eligible_and_does_not_vote():
    table = walk()
    turned = np.arange(60, 80)
    table.box[turned] = [0.0, 0.5, 0.15, 0.6]
    table.probs["doors"][turned] = [1, 0, 0, 0]
    table.azimuth_deg[turned] = 123.0
    seen = eligibility.eligible_frames(table)
    assert not seen[turned].any()
    assert not set(selection.chosen_frames(select_photos(table)).values()) & set(turned)
    left_out = dataclasses.replace(
        table, car_probability=np.where(np.isin(np.arange(180), turned), 0, 0.9)
    )
    got, want = (select_photos(t).orientation.coverage for t in (table, left_out))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_old_tables_are_judged_as_before():
    table = walk(blurred=range(10, 14))
    assert table.content_probs is None
    told = with_content(dataclasses.replace(table, car_colour=np.full((180, 3), 0.5)), [])
    np.testing.assert_array_equal(
        eligibility.eligible_frames(table), eligibility.eligible_frames(told)
    )


def test_a_quarter_of_what_shows_a_car_is_enough_once_it_was_seen():
    table = make_table(count=2, car_probability=np.array([0.9, 0.25 * 0.5]))
    assert eligibility.car_frames(table, 0.5).tolist() == [True, True]


def test_brightness_is_that_of_the_eye():
    colour = np.full((40, 3), 0.3, np.float32)
    colour[30:34] = [0, 0, 0.6]
    table = make_table(count=40, car_colour=colour)
    lit = eligibility.lit_frames(table, np.ones(40, bool), np.ones(40))
    assert np.flatnonzero(~lit).tolist() == [*range(30, 34)]


def test_whole_cars_are_compared_by_the_time_that_they_have_in_the_video():
    """And not among themselves: then frame 5, before a pause, would stand for nearly all of it."""
    index = np.arange(24)
    part = (index >= 6) & (index < 18)
    table = make_table(
        count=24,
        time_s=np.concatenate([np.arange(12) / 12, 10 + np.arange(12) / 12]),
        sharpness=np.where(index == 5, 1.0, 0.5),
        content_probs=np.where(part[:, None], [0.1, 0.85, 0.05], [0.9, 0.08, 0.02]),
    )
    assert eligibility.eligible_frames(table)[~part].all()


def test_a_frame_stands_for_half_the_time_to_each_neighbour():
    np.testing.assert_allclose(
        eligibility.time_weights([1.0, 2.0, 5.0, 6.0]), np.array([0.5, 2.0, 2.0, 0.5]) / 5
    )
    np.testing.assert_array_equal(eligibility.time_weights([3.0]), [1.0])
    np.testing.assert_array_equal(eligibility.time_weights([3.0, 3.0]), [0.5, 0.5])
    # Never quite none: a mean over any frames is one.
    weights = eligibility.time_weights([0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(weights, [1e-12, 1e-12, 0.5, 0.5])


@settings(max_examples=60)
@given(st.lists(st.floats(0.0, 1e4), min_size=1, max_size=30))
def test_time_weights_integrate_a_line_exactly(times):
    times = np.sort(times)
    weights = eligibility.time_weights(times)
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ times == pytest.approx(
        (times[0] + times[-1]) / 2 if times[0] < times[-1] else times[0], abs=1e-6
    )


@pytest.mark.parametrize("times", [[], [[0.0, 1.0]], [1.0, 0.0], [0.0, math.nan]])
def test_times_that_no_video_has_are_refused(times):
    with pytest.raises(ValueError, match="time_s must"):
        eligibility.time_weights(times)


def test_what_is_as_likely_counts_for_the_frame():
    even = [(3, [0.25, 0.25, 0.5]), (4, [0.2, 0.2, 0.6]), (5, [0.4, 0.5, 0.1])]
    table = with_content(make_table(count=9), even)
    assert np.flatnonzero(~eligibility.car_frames(table)).tolist() == [4]
    assert np.flatnonzero(~eligibility.whole_frames(table)).tolist() == [5]


def test_a_frame_whose_box_is_no_number_is_not_taken_for_another_car_s():
    table = make_table(count=9)
    box = np.array(table.box)
    box[4, 2] = np.nan
    table = dataclasses.replace(table, box=box)
    assert eligibility.main_car_frames(table).all()
    assert np.flatnonzero(~eligibility.eligible_frames(table)).tolist() == [4]
