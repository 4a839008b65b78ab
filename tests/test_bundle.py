"""`carjax bundle`: heads that belong together are joined, others are refused in one line."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from carjax import bundle, files, heads, localise, model
from carjax.attributes import CAR, Angular, Categorical, find
from carjax.backbones import pretrained
from carjax.calibration import ClassCalibration, DirectionCalibration
from carjax.cli import bundle as command
from carjax.errors import CarjaxError, UsageError

BACKBONE = "efficientnet_lite2"
BOX = localise.LocaliseSpec(input_size=32, channels=4)


@functools.cache
def backbone_params():
    return pretrained.load_pretrained(BACKBONE)[1]


@functools.cache
def backbone_sha256():
    return model.weights_hash(backbone_params())


@functools.cache
def part(name, size=32):
    """A model of one head, or of the car box alone, with random parameters."""
    boxes = name == "localise"
    spec = model.Spec(
        BACKBONE,
        () if boxes else (heads.HeadSpec(find(CAR, name), grid=1, hidden=4),),
        BOX if boxes else None,
        size,
    )
    rng = np.random.default_rng(len(name))
    shapes = model.expected_params(spec)
    tree = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float16), shapes)
    card = {
        "bundle": f"car_{name}",
        "version": "0",
        "backbone": BACKBONE,
        "backbone_sha256": backbone_sha256(),
        "training": {name: {"seconds": len(name)}},
        "models": ["Audi A4", f"car of {name}"],
    }
    digest = f"{len(name):064x}"
    return model.Model(tree, spec, card, frozenset({digest, "f" * 64}))


def loaded(one):
    """The model as `model.load` would give it, with an empty backbone."""
    return dataclasses.replace(one, params={**one.params, "backbone": {}})


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Folders as `carjax train` leaves them; the backbone is read once for all tests."""
    params, digest = backbone_params(), backbone_sha256()
    monkeypatch.setattr(pretrained, "read", lambda *a: (params, "shipped"))
    monkeypatch.setattr(model, "weights_hash", lambda params: digest)
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)

    def write(name, **kwargs):
        folder = tmp_path / name
        folder.mkdir()
        model.save(dataclasses.replace(part(name), **kwargs), folder / "head.safetensors")
        return str(folder)

    return write


def test_five_heads_and_the_box_are_joined_in_the_schema_s_order(folders, tmp_path, capsys):
    names = ["orientation", "seats", "localise", "brand", "doors", "type"]
    out = tmp_path / "all.safetensors"
    given = ",".join(folders(n) for n in names)
    assert command.main([f"--heads={given}", f"--out={out}", "--name=mine"]) == 0
    joined = model.load(out)
    assert joined.spec.schema == CAR
    assert joined.spec.localise == BOX
    assert joined.card["bundle"] == "mine"
    assert joined.card["training"]["doors"] == {"seconds": 5}
    assert set(joined.card["training"]) == set(names)
    assert joined.card["models"] == sorted(["Audi A4", *(f"car of {n}" for n in names)])
    assert joined.training_hashes == frozenset().union(*(part(n).training_hashes for n in names))
    for name in names:
        own = part(name).params
        mine = own["localise"] if name == "localise" else own["heads"][name]
        theirs = joined.params["localise"] if name == "localise" else joined.params["heads"][name]
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert "type, brand, doors, seats, orientation, localise" in capsys.readouterr().out


def test_some_heads_without_a_box(folders, tmp_path):
    out = tmp_path / "two.safetensors"
    # A bundle's file serves as well as a folder.
    words = f"--heads={folders('seats')},{folders('type')}/head.safetensors"
    assert command.main([words, f"--out={out}"]) == 0
    joined = model.load(out)
    assert [h.attribute.name for h in joined.spec.heads] == ["type", "seats"]
    assert joined.spec.localise is None
    assert joined.card["bundle"] == "two"  # as its file is called


def test_an_attribute_twice(folders, tmp_path):
    given = folders("doors")
    with pytest.raises(CarjaxError, match=r"doors comes from .* already"):
        command.main([f"--heads={given},{given}", f"--out={tmp_path / 'x.safetensors'}"])
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backbone", "efficientnet_lite0", "b: trained on another backbone than a"),
        ("backbone_sha256", "0", "b: .* weights than a"),
    ],
)
def test_heads_of_other_backbones_do_not_join(field, value, message):
    other = dataclasses.replace(part("type"), card={**part("type").card, field: value})
    doors = loaded(part("doors"))
    with pytest.raises(CarjaxError, match=message):
        bundle.join([doors, other], ["a", "b"], "x")


def test_heads_of_other_input_sizes_do_not_join():
    doors = loaded(part("doors"))
    with pytest.raises(CarjaxError, match=r"32 \(a\), 64 \(b\)"):
        bundle.join([doors, part("type", 64)], ["a", "b"], "x")


def test_the_box_may_have_been_trained_at_another_size():
    doors, box = loaded(part("doors")), loaded(part("localise", 64))
    for parts in ([doors, box], [box, doors]):
        assert bundle.join(parts, ["a", "b"], "x").spec.input_size == 32


def test_a_file_that_is_no_bundle_is_not_replaced(folders, tmp_path):
    given, notes = folders("doors"), tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(CarjaxError, match="is not a bundle that carjax wrote"):
        command.main([f"--heads={given}", f"--out={notes}"])
    assert notes.read_text() == "mine"
    bundled = tmp_path / "x.safetensors"
    for _ in range(2):  # one's own is
        assert command.main([f"--heads={given}", f"--out={bundled}"]) == 0
    before = bundled.read_bytes()
    with pytest.raises(UsageError, match="is read as well"):
        command.main([f"--heads={bundled}", f"--out={bundled}"])
    assert bundled.read_bytes() == before


def test_wrong_calls_are_one_line(folders, tmp_path):
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    out = f"--out={tmp_path / 'x.safetensors'}"
    for words, kind, message in (
        ([], UsageError, "--heads"),
        ([f"--heads={unfinished}"], UsageError, "--out"),
        ([f"--heads={unfinished}", out], CarjaxError, "finished"),
        (["--heads=nowhere", out], CarjaxError, "nowhere"),
        (["--heads=a", "--out=no/such/folder/x"], CarjaxError, "no/such/folder"),
        (["--heads=a", f"--out={unfinished}"], CarjaxError, "is a folder"),
        (["--heads=,", out], UsageError, "between commas"),
        (["--heads=a", out, "more"], UsageError, "more"),
    ):
        with pytest.raises(kind, match=message) as caught:
            command.main(words)
        assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["--help"])


def test_a_disk_that_refuses_the_file_is_one_line(folders, tmp_path, disk_refuses):
    out, given = tmp_path / "x.safetensors", folders("doors")
    with pytest.raises(CarjaxError, match=r"^cannot write .*x\.safetensors: .*give another --out$"):  # noqa: SIM117
        with disk_refuses():
            command.main([f"--heads={given}", f"--out={out}"])
    assert not out.exists()


def test_calibrations_are_kept_in_the_file(folders, tmp_path):
    numbers = {
        "doors": {"sharpness": 0.5, "slope": -0.25, "unknown_above": 0.75},
        "orientation": {"body_scale": 0.5, "tail_scale": 0.1, "tail": 0.2, "floor": 0.01},
    }
    path, out = tmp_path / "calibration.json", tmp_path / "all.safetensors"
    path.write_text(json.dumps(numbers))
    given = ",".join(folders(n) for n in ("doors", "orientation", "seats"))
    assert command.main([f"--heads={given}", f"--out={out}", f"--calibration={path}"]) == 0
    spec = model.load(out).spec
    assert spec.head("doors").calibration == ClassCalibration(0.5, -0.25, unknown_above=0.75)
    assert spec.head("orientation").calibration == DirectionCalibration(0.5, 0.1, 0.2, 0.01)
    assert spec.head("seats").calibration is None
    assert spec.unknown_above == {"doors": 0.75}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"brand": {"sharpness": 1.0}}, "no head for 'brand' to calibrate"),
        ({"doors": {"kappa_scale": 1.0}}, "doors: .*kappa_scale"),
    ],
)
def test_a_calibration_that_does_not_fit(folders, tmp_path, numbers, message):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(numbers))
    with pytest.raises(CarjaxError, match=message):
        command.main(
            [f"--heads={folders('doors')}", f"--out={tmp_path / 'x'}", f"--calibration={path}"]
        )
    assert not (tmp_path / "x").exists()


def test_a_card_adds_to_what_the_file_says_of_itself(folders, tmp_path):
    path, out = tmp_path / "card.json", tmp_path / "mine.safetensors"
    path.write_text(
        json.dumps({"bundle": "other", "backbone_sha256": "0", "metrics": {"ece": 0.1}})
    )
    words = [f"--heads={folders('doors')}", f"--out={out}", "--name=mine", f"--card={path}"]
    assert command.main(words) == 0
    card = model.load(out).card
    assert (card["bundle"], card["metrics"]) == ("mine", {"ece": 0.1})
    assert card["backbone_sha256"] == backbone_sha256()


def test_a_model_has_one_direction():
    own = part("orientation")
    head = dataclasses.replace(own.spec.heads[0], attribute=Angular("tilt"))
    params = {**own.params, "heads": {"tilt": own.params["heads"]["orientation"]}}
    spec = dataclasses.replace(own.spec, heads=(head,))
    both = [loaded(one) for one in (own, dataclasses.replace(own, params=params, spec=spec))]
    with pytest.raises(CarjaxError, match=r"a, b: orientation and tilt are directions, of which"):
        bundle.join(both, ["a", "b"], "x")


def test_only_where_cars_are_meant_can_there_be_none():
    def spec(*attributes, box=None):
        return model.Spec(BACKBONE, tuple(heads.HeadSpec(a) for a in attributes), box, 32)

    ripeness, heading = Categorical("ripeness", ("green", "ripe")), Angular("heading")
    assert not spec(ripeness, heading).of_cars
    assert spec(ripeness, find(CAR, "doors")).of_cars
    assert spec(Categorical("brand", ("Borgward", "Isetta"))).of_cars
    assert spec(ripeness, box=BOX).of_cars


def test_a_car_box_is_used_where_there_is_one_unless_told_otherwise():
    without = part("type")
    assert without.with_localise(None) is without
    with pytest.raises(CarjaxError, match="no car box"):
        without.with_localise(True)
    assert part("localise").with_localise(None).spec.localise == BOX
    assert part("localise").with_localise(False).spec.localise is None


def test_a_folder_of_training_stands_for_its_head(tmp_path):
    assert files.head_file(tmp_path) == tmp_path / "head.safetensors"
    assert files.head_file(tmp_path / "x.safetensors") == tmp_path / "x.safetensors"
    with pytest.raises(CarjaxError, match="is its training finished"):
        model.bundle_path(tmp_path)
    (tmp_path / "head.safetensors").touch()
    assert model.bundle_path(tmp_path) == tmp_path / "head.safetensors"
