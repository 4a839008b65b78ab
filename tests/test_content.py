"""The content head: what 'none' gains, its place in a bundle, its training table, old bundles."""

import csv
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bundle import loaded, part

from carjax import bundle, content, heads, localise, model, scoring
from carjax.attributes import CAR, CONTENT, VEHICLE_CLASSES
from carjax.backbones import registry
from carjax.cli import select
from carjax.datasets import photos
from carjax.errors import CarjaxError

ROOT = pathlib.Path(__file__).parents[1]
TABLE = ROOT / "data" / "content_labels.csv"
pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_none_gains_only_where_imagenet_sees_no_vehicle():
    logits = np.zeros((3, 1000), np.float32)
    logits[0, VEHICLE_CLASSES[3]] = 9.0  # a car
    logits[1, 281] = 12.0  # a cat
    gain = np.asarray(content.none_bonus(jnp.asarray(logits)))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    mass = probs[:, list(VEHICLE_CLASSES)].sum(1)
    want = 0.25 * np.maximum(np.log(0.01) - np.log(mass), 0)
    np.testing.assert_allclose(gain, want[:, None] * [0, 0, 1], atol=1e-4)
    assert gain[0].sum() == gain[2].sum() == 0 < gain[1, 2]


def test_content_reads_the_last_look(tiny_model):
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), np.uint8)
    spec = tiny_model.spec
    backbone, frozen = registry.create(spec.backbone), tiny_model.params["backbone"]

    @jax.jit
    def both(frames):
        found = localise.find(
            tiny_model.params["localise"], backbone, frozen, frames, spec.localise
        )
        direct = content.content_probs(
            tiny_model.params["content"], spec.content, backbone, frozen, found.features
        )
        every = jnp.ones(len(frames), bool)
        return direct, scoring.score(tiny_model.params, frames, every, spec=spec).content_probs

    direct, scored = map(np.asarray, both(frames))
    np.testing.assert_allclose(direct, scored, atol=1e-5)
    np.testing.assert_allclose(scored.sum(1), 1, atol=1e-5)
    assert np.abs(scored[0] - scored[1]).max() > 1e-4


def test_a_bundle_of_before_scores_as_before(tiny_model):
    old = dataclasses.replace(
        tiny_model,
        params={k: v for k, v in tiny_model.params.items() if k != "content"},
        spec=dataclasses.replace(tiny_model.spec, content=None),
    )
    tree = model.spec_to_json(old.spec)
    del tree["content"]
    assert model.spec_from_json(tree) == old.spec
    frames = jax.ShapeDtypeStruct((2, 48, 80, 3), jnp.uint8)
    shapes = jax.eval_shape(
        lambda f: scoring.score(old.params, f, jnp.ones(2, bool), spec=old.spec), frames
    )
    assert shapes.content_probs is None


# --- In a bundle ----------------------------------------------------------------------------------


def trained(size=32):
    """What `carjax train` leaves of configs/content.py: one head named content."""
    spec = model.Spec(
        "efficientnet_lite2",
        (heads.HeadSpec(CONTENT, grid=1, hidden=4),),
        None,
        size,
    )
    shapes = model.expected_params(spec)
    tree = jax.tree.map(lambda s: np.full(s.shape, 0.5, np.float16), shapes)
    card = dict(part("type").card) | {"training": {"content": {"seconds": 3}}, "models": []}
    return model.Model(tree, spec, card, frozenset({"c" * 64}))


def joined(*parts):
    return bundle.join([loaded(p) for p in parts], [f"part {i}" for i in range(len(parts))], "x")


def test_the_content_head_joins_the_car_box(tmp_path):
    got = joined(part("type", 64), trained(), part("localise"))
    assert got.spec.schema == (CAR[0],)
    assert got.spec.input_size == 64
    assert got.spec.content == trained().spec.heads[0]
    assert set(got.params) == {"backbone", "heads", "localise", "content"}
    assert "c" * 64 in got.training_hashes
    assert got.card["training"]["content"] == {"seconds": 3}
    model.check({k: v for k, v in got.params.items() if k != "backbone"}, got.spec, "x")
    # A joined bundle takes part in the next one.
    again = joined(got, part("brand", 64))
    assert again.spec.content == got.spec.content
    assert model.spec_from_json(model.spec_to_json(again.spec)) == again.spec


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("type", 32), "part 1: content needs a car box that looks at 32 pixels"),
        (("localise", 48), "part 1: content needs a car box that looks at 48 pixels"),
    ],
)
def test_content_without_its_car_box_is_refused(parts, message):
    name, size = parts
    with pytest.raises(CarjaxError, match=message):
        joined(part(name), trained(size))


def test_content_twice_is_refused():
    with pytest.raises(CarjaxError, match="part 2: content comes from part 1 already"):
        joined(part("localise"), trained(), trained())


# --- What is said of it ---------------------------------------------------------------------------


def test_a_photo_of_a_part_is_called_one(capsys):
    choice = {"value": "SUV", "certainty": 0.5, "time_s": 1.0, "photo": "photos/type.jpg"}
    told = {
        "attributes": {"type": choice | {"content": "part"}, "doors": choice | {"content": None}}
    }
    select.show(told, pathlib.Path("out"))
    lines = capsys.readouterr().out.splitlines()
    assert ["part of the car" in line for line in lines[1:3]] == [True, False]


# --- The table ------------------------------------------------------------------------------------


def test_the_table_is_sound_and_big_enough():
    with TABLE.open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert {row["content"] for row in rows} == set(CONTENT.classes)
    assert {row["by"] for row in rows} == {"looked", "rule"}
    looked = [row for row in rows if row["by"] == "looked"]
    assert len({(r["dataset"], r["file"], r["left"], r["top"]) for r in looked}) == len(looked)
    for name in CONTENT.classes:
        assert sum(row["content"] == name for row in looked) >= 100
    for row in rows:
        sides = [row[s] for s in ("left", "top", "right", "bottom")]
        assert all(sides) or not any(sides)
        if all(sides):
            left, top, right, bottom = map(int, sides)
            assert 0 <= left < right
            assert 0 <= top < bottom


def test_windows_are_read_as_crops(carjax_data):
    for name in ("car_boxes", "phone_photos"):
        read = photos.read_content(TABLE, carjax_data / name)
        window = next(i for i in range(len(read)) if not np.isnan(read.crop[i]).any())
        left, top, right, bottom = read.crop[window].astype(int)
        assert read.read(window).shape == (bottom - top, right - left, 3)
        assert (read.labels["content"] >= 0).all()


def test_a_broken_table_is_one_line(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "dataset,file,left,top,right,bottom,content\ny,a.jpg,1,2,3,4,none\nx,a.jpg,1,2,3,four,none\n"
    )
    with pytest.raises(CarjaxError, match=r"labels\.csv: line 3: bottom is 'four', not a number$"):
        photos.read_content(path, tmp_path / "x")
    path.write_text("dataset,file\n")
    with pytest.raises(CarjaxError, match="no column left"):
        photos.read_content(path, tmp_path / "x")


def test_misspelt_content_and_windows_of_two_rows_are_told(tmp_path, caplog):
    path = tmp_path / "labels.csv"
    rows = ["x,a.jpg,,,,,whole", "x,a.jpg,,,,,part", "x,a.jpg,0,0,9,9,Part", "y,a.jpg,,,,,none"]
    path.write_text("\n".join(["dataset,file,left,top,right,bottom,content", *rows]))
    read = photos.read_content(path, tmp_path / "x")
    assert read.labels["content"].tolist() == [0, 1, -1]
    assert read.unheard_of == {"content": {"Part": 1}}
    assert "labels.csv: 1 windows have more than one row, the first of x/a.jpg" in caplog.text
    caplog.clear()
    assert not photos.read_content(path, tmp_path / "y").unheard_of
    assert not caplog.messages


def test_the_shipped_table_has_one_photo_of_which_two_rows_differ(caplog):
    read = photos.read_content(TABLE, "phone_photos")
    assert (read.labels["content"] >= 0).all()
    assert "1 windows have more than one row, the first of phone_photos/3589.jpg" in caplog.text
    photos.read_content(TABLE, "car_boxes")
    assert len(caplog.messages) == 1
