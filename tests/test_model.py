"""The bundle: what is saved comes back, and every other file is told in one line."""

import ast
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import carjax
from carjax import attributes, heads, localise, model
from carjax.backbones import pretrained
from carjax.errors import CarjaxError

HASHES = frozenset({"00" * 32, "ab" * 32})


@pytest.fixture(scope="module")
def weights(tiny_model, tmp_path_factory):
    """A file with the tiny model's backbone."""
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    pretrained.save(tiny_model.params["backbone"], path, np.float32)
    return path


@pytest.fixture(scope="module")
def bundle(tiny_model, tmp_path_factory):
    """The tiny model's bundle file."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    model.save(dataclasses.replace(tiny_model, training_hashes=HASHES), path)
    return path


def rewrite(bundle, path, tensors=None, drop=(), **metadata):
    """Writes the bundle anew with some tensors or metadata changed."""
    with safetensors.safe_open(bundle, "numpy") as f:
        content = {k: f.get_tensor(k) for k in f.keys()} | (tensors or {})  # noqa: SIM118
        facts = f.metadata() | metadata
    content = {k: v for k, v in content.items() if k not in drop}
    facts = {k: v for k, v in facts.items() if k not in drop}
    safetensors.numpy.save_file(content, path, facts)
    return path


def test_modules_are_found_on_the_package_and_a_missing_head_is_named(tiny_model):
    code = "import carjax; print(carjax.scoring.score.__name__, carjax.selection.schema()['title'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("score "), done.stderr
    with pytest.raises(AttributeError, match="no attribute 'wheels'"):
        _ = carjax.wheels
    with pytest.raises(KeyError, match="no head for 'wheels'; there are: "):
        tiny_model.spec.head("wheels")


def test_round_trip(tiny_model, bundle, weights):
    loaded = model.load(bundle, backbone_weights=weights)
    assert loaded.spec == tiny_model.spec
    assert hash(loaded.spec) == hash(tiny_model.spec)
    assert loaded.card == tiny_model.card
    assert loaded.training_hashes == HASHES
    assert jax.tree.structure(loaded.params) == jax.tree.structure(tiny_model.params)
    want = pretrained.flatten(tiny_model.params)
    for key, value in pretrained.flatten(loaded.params).items():
        assert value.dtype == np.float32
        exact = key.startswith("backbone/")
        rounded = want[key] if exact else want[key].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(value, rounded, err_msg=key)


def test_a_model_that_scores_whole_frames_is_kept_without_its_car_box(
    tiny_model, weights, tmp_path
):
    path = tmp_path / "whole.safetensors"
    model.save(tiny_model.with_localise(False), path)
    loaded = model.load(path, backbone_weights=weights)
    assert loaded.spec == dataclasses.replace(tiny_model.spec, localise=None, content=None)
    assert loaded.params.keys() == {"backbone", "heads"}
    assert loaded.params["heads"].keys() == tiny_model.params["heads"].keys()


def test_what_ships_fits_its_own_spec():
    """`load` does not check it at every start."""
    shipped = model.load()
    tree = {k: v for k, v in shipped.params.items() if k != "backbone"}
    model.check(tree, shipped.spec, "shipped")
    pretrained.check(shipped.params["backbone"], shipped.spec.backbone, "shipped")


def test_saving_leaves_no_other_file(tiny_model, tmp_path):
    before = os.umask(0o022)
    try:
        for _ in range(2):  # the second replaces the first
            model.save(tiny_model, tmp_path / "tiny.safetensors")
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]
    assert (tmp_path / "tiny.safetensors").stat().st_mode & 0o077 != 0  # not for the owner alone


def test_the_backbone_is_not_in_the_bundle(bundle):
    with safetensors.safe_open(bundle, "numpy") as f:
        assert not [key for key in f.keys() if key.startswith("backbone")]  # noqa: SIM118
    assert bundle.stat().st_size < 1e6


@pytest.mark.parametrize(
    "spec",
    [
        model.Spec(
            "efficientnet_lite2",
            tuple(heads.HeadSpec(a) for a in attributes.CAR),
            localise.LocaliseSpec(),
            260,
        ),
        model.Spec("x", (heads.HeadSpec(attributes.Angular("heading"), 0, 3, 5),), None, 64),
        model.Spec(
            "x",
            (heads.HeadSpec(attributes.Categorical("doors", ("2", "4")), parts=(0, 1, 1)),),
            None,
            64,
        ),
    ],
)
def test_spec_survives_json(spec):
    loaded = model.spec_from_json(json.loads(json.dumps(model.spec_to_json(spec))))
    assert loaded == spec
    assert hash(loaded) == hash(spec)


def test_weights_hash_depends_on_names_shapes_and_values_only():
    tree = {"b": {"kernel": np.arange(6.0).reshape(2, 3)}, "a": {"bias": np.ones(2)}}
    digest = model.weights_hash(tree)
    # Stable: every bundle in the world holds such a digest.
    assert digest == "3f493587da162b9596b31e5f7b45e74269d658224ce0708832dbd8b553f4a83c"
    reordered = {"a": tree["a"], "b": {"kernel": tree["b"]["kernel"].astype(np.float32)}}
    assert model.weights_hash(reordered) == digest
    fortran = {"b": {"kernel": np.asfortranarray(tree["b"]["kernel"])}, "a": tree["a"]}
    assert model.weights_hash(fortran) == digest
    for other in (
        {"b": {"kernel": tree["b"]["kernel"].reshape(3, 2)}, "a": tree["a"]},
        {"b": {"kernel": tree["b"]["kernel"] + 1e-6}, "a": tree["a"]},
        {"b": {"kernal": tree["b"]["kernel"]}, "a": tree["a"]},
    ):
        assert model.weights_hash(other) != digest


def test_with_localise(tiny_model):
    assert tiny_model.with_localise(True) is tiny_model
    whole = tiny_model.with_localise(False)
    assert whole.spec.localise is None
    assert whole.params is tiny_model.params
    with pytest.raises(CarjaxError, match="no car box: score with --nolocalise"):
        whole.with_localise(True)


def test_expected_params_have_no_values(tiny_model):
    expected = model.expected_params(tiny_model.spec)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(expected))
    assert set(expected) == {"heads", "localise", "content"}
    assert list(expected["heads"]) == sorted(a.name for a in attributes.CAR)


# --- Files that are no bundle ---------------------------------------------------------------------


def refused(path, **kwargs):
    with pytest.raises(CarjaxError) as error:
        model.load(path, **kwargs)
    return str(error.value)


def test_unknown_name():
    assert "no_such_model: no such model: give a bundle's file" in refused("no_such_model")


def test_a_folder_of_its_name_does_not_hide_what_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = model.bundle_path(None)
    folder = tmp_path / model.DEFAULT_BUNDLE
    folder.mkdir()
    (folder / "head.safetensors").touch()
    assert model.bundle_path(model.DEFAULT_BUNDLE) == model.bundle_path(None) == shipped
    assert model.bundle_path(folder) == folder / "head.safetensors"


def test_not_safetensors(bundle, tmp_path):
    for name, content in {
        "text": b"hello, this is a text file",
        "empty": b"",
        "cut": bundle.read_bytes()[:-500],
    }.items():
        (tmp_path / name).write_bytes(content)
        assert f"{name}: not a carjax bundle" in refused(tmp_path / name)


def test_safetensors_that_are_no_bundle(weights):
    assert f"{weights}: not a carjax bundle of version 1" in refused(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carjax_bundle": "99"}, "not a carjax bundle of version 1"),
        ({"spec": "{"}, "not a carjax bundle"),
        ({"spec": "{}"}, "'heads' is missing"),
        ({"spec": "[]"}, "not a carjax bundle"),
        ({"card": "{}"}, "'backbone_sha256' is missing"),
        ({"drop": ("card",)}, "'card' is missing"),
        ({"drop": ("training/sha256",)}, "'training/sha256' is missing"),
    ],
)
def test_damaged_metadata(change, message, bundle, weights, tmp_path):
    path = rewrite(bundle, tmp_path / "damaged.safetensors", **change)
    assert message in refused(path, backbone_weights=weights)


def test_a_density_that_is_not_at_hand(bundle, tiny_model, tmp_path):
    spec = model.spec_to_json(tiny_model.spec)
    for own, message in (
        ({"density": "kent"}, "no 'kent'; there are: vonmises"),
        ({"density": "kent", "module": "no_such"}, "cannot import no_such (config.head.module)"),
    ):
        rows = [h if "classes" in h["attribute"] else {**h, **own} for h in spec["heads"]]
        path = rewrite(bundle, tmp_path / "b", spec=json.dumps({**spec, "heads": rows}))
        assert message in refused(path)


def test_a_backbone_that_is_not_in_the_registry(bundle, tiny_model, tmp_path):
    spec = model.spec_to_json(tiny_model.spec) | {"backbone": "resnet"}
    path = rewrite(bundle, tmp_path / "b.safetensors", spec=json.dumps(spec))
    assert "no backbone 'resnet'" in refused(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 0}, "sides of [0, "),
        ({"input_size": "260"}, "sides of ['260', "),
        ({"localise": {"input_size": 1, "channels": 8}}, "sides of "),
        ({"heads": ["doors"]}, "not a carjax bundle"),
        ({"head": {"grid": "4"}}, "not a carjax bundle"),
        ({"head": {"members": 0}}, "not a carjax bundle"),
        ({"head": {"parts": [999]}}, "type: parts of classes that do not exist"),
        ({"head": {"parts": [-1]}}, "type: parts of classes that do not exist"),
        ({"head": {"calibration": {"sharpness": "big"}}}, "sharpness must be a finite number"),
        ({"heads": "twice"}, "two heads for one attribute"),
    ],
)
def test_a_spec_that_cannot_be(bundle, tiny_model, tmp_path, changes, message):
    spec = model.spec_to_json(tiny_model.spec)
    spec["heads"][0] |= changes.pop("head", {})
    if changes.get("heads") == "twice":
        changes = {"heads": spec["heads"] + spec["heads"][:1]}
    path = rewrite(bundle, tmp_path / "b.safetensors", spec=json.dumps(spec | changes))
    assert message in refused(path)


def test_weights_that_are_not_finite_are_neither_written_nor_read(
    bundle, tiny_model, weights, tmp_path
):
    def with_bias(value):
        heads = {**tiny_model.params["heads"]}
        first = next(iter(heads))
        heads[first] = jax.tree.map(lambda x: np.full_like(x, value), heads[first])
        return dataclasses.replace(tiny_model, params={**tiny_model.params, "heads": heads})

    for value, message in ((np.nan, "not finite"), (1e6, "too large for float16")):
        with pytest.raises(CarjaxError, match=message):
            model.save(with_bias(value), tmp_path / "bad.safetensors")
    assert list(tmp_path.iterdir()) == []
    bias = {"localise/out/bias": np.full(4, np.nan, np.float16)}
    path = rewrite(bundle, tmp_path / "nan.safetensors", tensors=bias)
    assert "localise/out/bias holds numbers that are not finite" in refused(path)
    inside = {"localise/out/bias/a": np.zeros(1, np.float16)}
    path = rewrite(bundle, tmp_path / "tree.safetensors", tensors=inside)
    assert "localise/out/bias is a tensor, and a folder" in refused(path)


def test_other_weights_of_the_backbone(bundle, tiny_model, tmp_path):
    other = pretrained.unflatten(pretrained.flatten(tiny_model.params["backbone"]))
    other["stem"]["bias"] = other["stem"]["bias"] + 1e-3
    pretrained.save(other, tmp_path / "other.safetensors", np.float32)
    message = refused(bundle, backbone_weights=tmp_path / "other.safetensors")
    assert "trained on other weights of efficientnet_lite0" in message
    assert "--backbone_weights=FILE" in message


def test_a_backbone_that_lacks_a_tensor_is_told_so(bundle, tiny_model, tmp_path):
    part = pretrained.flatten(tiny_model.params["backbone"])
    del part["stem/bias"]
    pretrained.save(pretrained.unflatten(part), tmp_path / "part.safetensors")
    message = refused(bundle, backbone_weights=tmp_path / "part.safetensors")
    assert "missing stem/bias (32,)" in message


def test_weights_that_the_package_does_not_ship(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path))
    assert "no weights for efficientnet_lite0" in refused(bundle)


def test_tensors_that_do_not_fit_are_all_listed(bundle, weights, tmp_path):
    path = rewrite(
        bundle,
        tmp_path / "odd.safetensors",
        tensors={
            "heads/doors/logits/bias": np.zeros(7, np.float16),
            "heads/wheels/bias": np.zeros(2, np.float16),
        },
        drop=("localise/out/bias",),
    )
    message = refused(path, backbone_weights=weights)
    for fault in (
        "heads/doors/logits/bias is (7,), not (4,)",
        "unexpected heads/wheels/bias (2,)",
        "missing localise/out/bias (5,)",
    ):
        assert fault in message
    assert message.count(";") == 2


# --- No file is ever unpickled --------------------------------------------------------------------

UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unpickling(tree):
    """Yields the lines of a syntax tree that could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
        else:
            names = set()
        if names & UNPICKLERS:
            yield node.lineno
        if isinstance(node, ast.Call):
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if keywords.get("allow_pickle", "False") != "False":
                yield node.lineno
            torch_load = ast.unparse(node.func) == "torch.load"
            if torch_load and keywords.get("weights_only") != "True":
                yield node.lineno


def test_no_module_unpickles():
    package = pathlib.Path(model.__file__).parent
    files = sorted(package.rglob("*.py"))
    assert len(files) > 20
    found = {
        str(path.relative_to(package)): lines
        for path in files
        if (lines := list(unpickling(ast.parse(path.read_text()))))
    }
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
    ],
)
def test_unpickling_would_be_seen(code):
    assert list(unpickling(ast.parse(code))) == [1]
    assert not list(unpickling(ast.parse("np.load(f); torch.load(f, weights_only=True)")))
