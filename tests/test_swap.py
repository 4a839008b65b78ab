"""Another frame for a photo: which ones are offered, and what follows from taking one."""

import jsonschema
import numpy as np
import pytest
from score_tables import make_table

from carjax import selection
from carjax.attributes import VIEWS, Angular, Categorical
from carjax.errors import UsageError
from carjax.selection import categorical, swap

N = 160
SCHEMA = (Categorical("doors", ("3", "5")), Angular("orientation"))


@pytest.fixture(scope="module")
def table():
    """A walk around in 20 s, seen sharply throughout; most frames say 5 doors."""
    rng = np.random.default_rng(3)
    five = np.clip(rng.normal(0.8, 0.12, N), 0.05, 0.99)
    probs = np.stack([1 - five, five], axis=1)
    return make_table(
        SCHEMA,
        frame=np.arange(N) * 3,
        time_s=np.arange(N) / 8,
        probs={"doors": probs},
        azimuth_deg=np.arange(N) * 360 / N,
        kappa=60.0,
        azimuth_floor=0.01,
    )


@pytest.fixture(scope="module")
def content(table):
    video = {
        **{"path": "a.mp4", "frames": 3 * N, "duration_s": N / 8},
        **{"width": 640, "height": 360, "scored_frames": N},
    }
    model = {"backbone": "b", "bundle": "c", "version": "1"}
    return selection.to_json(selection.select_photos(table), video=video, model=model)


def times(table, items):
    return np.array([table.time_s[table.frame == item["frame"]][0] for item in items])


def test_the_next_best_of_an_attribute_are_those_of_the_selection(table, content):
    offered = swap.next_best(table, content, "doors", limit=3)
    assert [o["frame"] for o in offered] == [
        a["frame"] for a in content["attributes"]["doors"]["alternatives"]
    ]
    assert offered[0] == pytest.approx(content["attributes"]["doors"]["alternatives"][0])


def test_what_is_offered_is_distinct_in_time_and_ordered(table, content):
    for name in swap.photo_names(content):
        offered = swap.next_best(table, content, name)
        view = name.startswith("view_")
        choice = content["orientation"]["views"][name[5:]] if view else content["attributes"][name]
        at = times(table, [choice, *offered])
        apart = np.abs(at[:, None] - at) + 99 * np.eye(len(at))
        assert apart.min() >= (swap.VIEW_GAP_S if view else categorical.MIN_GAP_S) - 1e-6
        if not view:
            certainty = [o["certainty"] for o in offered]
            assert certainty == sorted(certainty, reverse=True)


def test_every_view_offers_frames_of_its_own(table, content):
    for i, name in enumerate(VIEWS):
        offered = swap.next_best(table, content, f"view_{name}")
        assert offered
        off = [abs((o["azimuth_deg"] - 45 * i + 180) % 360 - 180) for o in offered]
        assert max(off) <= 22.5


def test_every_offer_can_be_taken_and_the_selection_stays_valid(table, content):
    for name in swap.photo_names(content):
        for offer in swap.next_best(table, content, name):
            result = swap.swapped(table, content, name, offer["frame"])
            jsonschema.validate(result, selection.schema())
            if name.startswith("view_"):
                new = result["orientation"]["views"][name[5:]]
                order = result["orientation"]["order"]
                azimuth = {
                    v["frame"]: v["azimuth_deg"] for v in result["orientation"]["views"].values()
                }
                assert [azimuth[f] for f in order] == sorted(azimuth.values())
            else:
                new = result["attributes"][name]
                assert new["value"] == content["attributes"][name]["value"]
                assert new["video_probability"] == content["attributes"][name]["video_probability"]
            assert {k: new[k] for k in offer if k != "value"} == {
                k: v for k, v in offer.items() if k != "value"
            }


def test_a_swap_there_and_back_changes_nothing(table, content):
    other = swap.next_best(table, content, "doors")[0]["frame"]
    there = swap.swapped(table, content, "doors", other)
    back = swap.swapped(table, there, "doors", content["attributes"]["doors"]["frame"])
    assert back == content
    assert there["attributes"]["doors"]["frame"] == other
    assert content["attributes"]["doors"]["frame"] != other  # the argument is as it was


def test_a_frame_of_another_class_keeps_the_value_and_says_its_probability(table, content):
    row = int(np.argmax(table.probs["doors"][:, 0]))
    assert table.probs["doors"][row, 0] > 0.3
    new = swap.swapped(table, content, "doors", int(table.frame[row]))["attributes"]["doors"]
    assert new["value"] == "5"
    assert new["probability"] == pytest.approx(table.probs["doors"][row, 1])


def test_a_photo_of_an_unknown_class_stays_one_of_the_nearest(table, content):
    """The video's probability beside it is of that class, too."""
    choice = content["attributes"]["doors"] | {
        **{"value": None, "reason": "unknown doors", "nearest": "5"}
    }
    unknown = content | {"attributes": {"doors": choice}}
    offered = swap.next_best(table, unknown, "doors", limit=3)
    assert [o["frame"] for o in offered] == [a["frame"] for a in choice["alternatives"]]
    assert {o["value"] for o in offered} == {"5"}
    new = swap.swapped(table, unknown, "doors", offered[0]["frame"])["attributes"]["doors"]
    assert (new["value"], new["probability"]) == (None, offered[0]["probability"])
    # A frame that says another class is described as one of the nearest, and so are the next ones.
    row = int(np.argmax(table.probs["doors"][:, 0]))
    other = swap.swapped(table, unknown, "doors", int(table.frame[row]))
    new = other["attributes"]["doors"]
    assert (new["nearest"], new["video_probability"]) == ("5", choice["video_probability"])
    assert new["probability"] == pytest.approx(table.probs["doors"][row, 1])
    assert {a["value"] for a in new["alternatives"]} == {"5"}
    assert swap.next_best(table, other, "doors") != []


def test_where_the_stated_class_is_not_known_the_numbers_stay_of_one_class(table):
    chosen = selection.select_photos(table, known={"doors": "7"}, attributes=["doors"])
    video = {**{"path": "a.mp4", "frames": 3 * N, "duration_s": N / 8}, "width": 2, "height": 2}
    content = selection.to_json(chosen, video=video, model={})
    before = content["attributes"]["doors"]
    assert (before["value"], before["nearest"]) == (None, "5")
    row = int(np.argmax(table.probs["doors"][:, 0]))
    after = swap.swapped(table, content, "doors", int(table.frame[row]))["attributes"]["doors"]
    assert (after["nearest"], after["video_probability"]) == ("5", before["video_probability"])
    assert after["probability"] == pytest.approx(table.probs["doors"][row, 1])


def test_a_missing_view_can_be_filled(table, content):
    held = {name: view for name, view in content["orientation"]["views"].items()}
    orientation = content["orientation"] | {"views": held | {"left": None}, "missing": ["left"]}
    lacking = content | {"orientation": orientation}
    best = swap.next_best(table, lacking, "view_left")[0]
    result = swap.swapped(table, lacking, "view_left", best["frame"])
    assert result["orientation"]["missing"] == []
    assert result["orientation"]["views"]["left"]["photo"] == "photos/view_left.jpg"
    assert len(result["orientation"]["order"]) == 8


@pytest.mark.parametrize(
    ("photo", "frame", "says"),
    [
        ("wheels", 0, "no photo 'wheels'"),
        ("doors", 1, "was not scored"),
        ("view_front", 240, "shows the rear rather than the front"),
    ],
)
def test_what_cannot_be_is_refused(table, content, photo, frame, says):
    with pytest.raises(UsageError, match=says):
        swap.swapped(table, content, photo, frame)


# --- What comes first -----------------------------------------------------------------------------


def as_json(table, **options):
    video = {
        **{"path": "a.mp4", "frames": len(table), "duration_s": float(table.time_s[-1])},
        **{"width": 640, "height": 360, "scored_frames": len(table)},
    }
    model = {"backbone": "b", "bundle": "c", "version": "1"}
    return selection.to_json(selection.select_photos(table, **options), video=video, model=model)


def test_frames_that_fill_a_view_come_before_those_nearer_to_its_middle():
    kappa, azimuth = np.full(30, 200.0), np.full(30, 10.0)
    kappa[12], azimuth[12] = 3.0, 0.0
    table = make_table(azimuth_deg=azimuth, kappa=kappa)
    offered = swap.next_best(table, as_json(table), "view_front", limit=9)
    fills = [o["probability"] > selection.VIEW_THRESHOLD for o in offered]
    assert len(fills) > 2
    assert fills == sorted(fills, reverse=True)


def test_of_four_views_too_those_nearest_to_the_middle_come_first():
    table = make_table(azimuth_deg=np.linspace(60, 120, 40))
    offered = swap.next_best(table, as_json(table, views=4), "view_left", limit=9)
    off = [abs(o["azimuth_deg"] - 90) for o in offered]
    assert off == sorted(off)
    assert off[0] < 10


def test_what_is_offered_of_a_long_video_is_a_share_of_it_apart():
    p = np.linspace(0.6, 0.9, 200)
    probs = {"doors": np.stack([p, 1 - p, 0 * p, 0 * p], axis=1)}
    table = make_table(probs=probs, time_s=np.arange(200.0))
    at = sorted(o["time_s"] for o in swap.next_best(table, as_json(table), "doors"))
    assert np.diff(at).min() >= categorical.MIN_GAP_SHARE * 199 - 1e-6
