"""Inception-ResNet-v2 and its converters against two independent implementations.

tests/reference holds the outputs of the torch one, so most of this runs without it. `slow` tests
run torch, and Keras itself on JAX, through the files that they write.
"""

import importlib.util
import os
import pathlib
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from carjax.backbones import convert, layers, pretrained, registry
from carjax.backbones import inception_resnet_v2 as architecture
from carjax.backbones.convert import inception_resnet_v2 as converter
from carjax.backbones.convert import readers
from carjax.errors import CarjaxError, UsageError

NAME = "inception_resnet_v2"
REFERENCE = pathlib.Path(__file__).parent / "reference"
PARITY = 1e-4

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    # Of Keras's variables with NumPy from 2.4, a thousand times.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def torch_script():
    """The module that made tests/reference/inception_resnet_v2.npz."""
    path = REFERENCE / "make_inception_resnet_v2.py"
    spec = importlib.util.spec_from_file_location("make_inception_resnet_v2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stored():
    with np.load(REFERENCE / f"{NAME}.npz") as f:
        return dict(f)


@pytest.fixture(scope="module")
def frames(torch_script, reference):
    with np.load(REFERENCE / "inputs.npz") as f:
        frames = f["frames"][: torch_script.FRAMES]
    return np.stack([reference.squash(frame, torch_script.SIZE) for frame in frames])


@pytest.fixture(scope="module")
def params(reference):
    """Ours from the state dict that the torch reference had, with its background class."""
    shapes = converter.state_dict_shapes("last_linear", classes=1001)
    return converter.from_state_dict(reference.synthetic_state(shapes))


@jax.jit
def apply(params, images):
    module = registry.create(NAME)
    features = module.apply({"params": params}, images)
    return module.apply({"params": params}, features, method="classify"), features


def run(params, pixels):
    """Returns the outputs for images [B, H, W, 3] of pixels."""
    logits, features = apply(params, registry.normalize(NAME, jnp.asarray(pixels)))
    outputs = {"logits": logits, "pooled": features.pooled, "grid": features.grid}
    return {key: np.asarray(value) for key, value in outputs.items()}


def errors(outputs, expected):
    """Returns max|a − b| / max|b| of each output."""
    found = {}
    for level, b in expected.items():
        if level in outputs:
            assert outputs[level].shape == b.shape
            largest = expected.get("grid_max", np.abs(b)) if level == "grid" else np.abs(b)
            found[level] = np.abs(outputs[level] - b).max() / largest.max()
    return found


def assert_parity(outputs, expected):
    for level, error in errors(outputs, expected).items():
        assert error <= PARITY, f"{level}: {error:.1e}"


# --- Architecture ---------------------------------------------------------------------------------


def test_parity_with_torch_from_stored_outputs(params, frames, stored, torch_script):
    expected = {**stored, "logits": stored["logits"][:, 1:]}
    outputs = torch_script.summarise(run(params, frames))
    assert set(errors(outputs, expected)) == {"logits", "pooled", "grid", "grid_mean", "grid_max"}
    assert_parity(outputs, expected)
    # The weights are no degenerate case: the images differ, and ReLUs cut some values.
    assert np.abs(expected["logits"][0] - expected["logits"][1]).max() > 0.5
    assert 0.1 < (expected["grid"] > 0).mean() < 0.95

    # Weights of the same shape in each other's place would be seen, and so would a small error.
    other = {**params, "block35_3": params["block35_4"], "block35_4": params["block35_3"]}
    assert errors(torch_script.summarise(run(other, frames)), expected)["logits"] > 10 * PARITY
    up = params["block17_7"]["up"]
    other = {**params, "block17_7": {**params["block17_7"], "up": {**up, "bias": up["bias"] + 0.1}}}
    assert errors(torch_script.summarise(run(other, frames)), expected)["logits"] > 10 * PARITY


@pytest.mark.parametrize("side", [75, 139, 224, 298, 299, 331])
def test_feature_shapes_at_any_input_size(side):
    module = registry.create(NAME)
    variables = {
        "params": pretrained.unflatten(
            {
                key: jax.ShapeDtypeStruct(shape, jnp.float32)
                for key, shape in pretrained.expected_shapes(NAME).items()
            }
        )
    }
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    features = jax.eval_shape(module.apply, variables, images)
    assert module.feature_shapes(side) == (features.pooled.shape[1:], features.grid.shape[1:])
    if side == 299:
        assert features.pooled.shape == (2, 1536)
        assert features.grid.shape == (2, 17, 17, 1088)
        logits = jax.eval_shape(partial(module.apply, method="logits"), variables, images)
        assert logits.shape == (2, 1000)


def test_images_that_are_too_small():
    module = registry.create(NAME)
    with pytest.raises(UsageError, match="needs images of 75 pixels or more: 74"):
        module.feature_shapes(74)
    with pytest.raises(UsageError, match="needs images of 75 pixels or more: 60"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 90, 60, 3)))


def test_size_of_the_network():
    shapes = pretrained.expected_shapes(NAME)
    norms = sum(shape[0] for key, shape in shapes.items() if key.endswith("/bias"))
    norms -= sum(shape[0] for key, shape in shapes.items() if key.endswith("/up/bias")) + 1000
    # With the means and variances that folding removes, it is what Keras counts.
    assert sum(int(np.prod(s)) for s in shapes.values()) + 2 * norms == 55_873_736
    assert {key.rsplit("/", 1)[1] for key in shapes} == {"kernel", "bias"}


@pytest.mark.slow
def test_bfloat16_computation_stays_close(random_tree):
    """On one block of each kind, which is all the kinds of layers that there are."""
    names = ("mixed_5b", "block35_0", "mixed_6a", "block17_0", "mixed_7a", "block8_0", "block8_9")
    blocks = tuple(block for block in architecture.BLOCKS if block.name in names)
    x = np.random.default_rng(2).uniform(-1, 1, (2, 75, 75, 3)).astype(np.float32)
    module = architecture.InceptionResNetV2(blocks)
    rough = architecture.InceptionResNetV2(blocks, dtype=jnp.bfloat16)
    variables = random_tree(jax.eval_shape(module.init, jax.random.key(0), x))
    exact, got = jax.jit(module.apply)(variables, x), jax.jit(rough.apply)(variables, x)
    for level in ("pooled", "grid"):
        a = np.asarray(getattr(got, level), np.float64).ravel()
        b = np.asarray(getattr(exact, level), np.float64).ravel()
        assert getattr(got, level).dtype == jnp.float32
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((1, 3), 1, "SAME"), (3, 2, "VALID"), (3, 1, "VALID"), ((2, 5), 1, "VALID")],
)
def test_convolution_layer_is_that_of_scipy(kernel, stride, padding):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    x = rng.standard_normal((1, 8, 9, 2)).astype(np.float32)
    weights = rng.standard_normal((height, width, 2, 1)).astype(np.float32)
    variables = {"params": {"kernel": weights, "bias": np.full(1, 0.5, np.float32)}}
    got = layers.Conv(1, kernel, stride, padding).apply(variables, x)
    mode = padding.lower()
    want = sum(signal.correlate2d(x[0, ..., c], weights[..., c, 0], mode) for c in range(2))
    np.testing.assert_allclose(got[0, ..., 0], want[::stride, ::stride] + 0.5, atol=1e-5)


# --- State dicts ----------------------------------------------------------------------------------


def hollow(shapes):
    """Arrays of those shapes that take no memory."""
    return {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}


def test_names_of_timm_differ_in_the_classifier_only():
    ours = converter.state_dict_shapes()
    theirs = converter.state_dict_shapes("last_linear", 1001)
    assert {k.replace("last_linear", "classif") for k in theirs} == set(ours)
    assert ours["classif.weight"] == (1000, 1536)
    assert theirs["last_linear.bias"] == (1001,)
    # Spelled out in timm's and pretrainedmodels' own source.
    for name, shape in {
        "conv2d_1a.conv.weight": (32, 3, 3, 3),
        "mixed_5b.branch0.conv.weight": (96, 192, 1, 1),
        "mixed_5b.branch3.1.bn.running_var": (64,),
        "repeat.9.branch2.2.conv.weight": (64, 48, 3, 3),
        "repeat.0.conv2d.bias": (320,),
        "mixed_6a.branch1.2.conv.weight": (384, 256, 3, 3),
        "repeat_1.19.branch1.1.conv.weight": (160, 128, 1, 7),
        "repeat_2.8.branch1.2.conv.weight": (256, 224, 3, 1),
        "block8.conv2d.weight": (2080, 448, 1, 1),
        "conv2d_7b.bn.weight": (1536,),
    }.items():
        assert ours[name] == shape


def test_all_faults_of_a_state_dict_are_listed_at_once():
    state = hollow(converter.state_dict_shapes())
    del state["conv2d_1a.conv.weight"], state["repeat_1.3.branch1.1.bn.running_mean"]
    state["block8.conv2d.bias"] = np.zeros(7)
    state["classif.weight"] = np.zeros((10, 1536))
    state["stranger"] = np.zeros(2)
    state["conv2d_1a.bn.num_batches_tracked"] = np.zeros(())
    with pytest.raises(CarjaxError, match="not a state dict of inception_resnet_v2") as error:
        converter.from_state_dict(state)
    for fault in (
        "missing conv2d_1a.conv.weight (32, 3, 3, 3)",
        "missing repeat_1.3.branch1.1.bn.running_mean (160,)",
        "block8.conv2d.bias is (7,), not (2080,)",
        "classif.weight is (10, 1536), not (1000, 1536)",
        "unexpected stranger (2,)",
    ):
        assert fault in str(error.value)
    assert str(error.value).count(";") == 4  # and no other fault


def test_no_classifier_at_all():
    state = hollow(converter.state_dict_shapes())
    del state["classif.weight"], state["classif.bias"]
    with pytest.raises(
        CarjaxError, match=r"missing classif\.bias \(1000,\); missing classif\.weight"
    ):
        converter.from_state_dict(state)


# --- Keras files ----------------------------------------------------------------------------------


def keras_layers(first=1):
    """The layers of a Keras file, hollow, with running numbers from `first`."""
    names = {"convolution": "conv2d", "batch norm": "batch_normalization", "dense": "predictions"}
    return [
        readers.KerasLayer(f"{names[kind]}_{i}", tuple(hollow(shapes).values()))
        for kind, expected in converter.keras_shapes().items()
        for i, shapes in enumerate(expected.values(), first)
    ]


def test_keras_order_is_by_distance_from_the_output():
    """As `[layer.name for layer in keras.applications.InceptionResNetV2().layers]` shows it."""
    order = converter._keras_order()
    assert len(order) == 244
    assert order[:5] == ["conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a"]
    # conv2d_9, then 7 and 10, then 6, 8, 11 and 12 of a fresh process.
    assert order[5:12] == [
        f"mixed_5b/branch{b}" for b in ("2_0", "1_0", "2_1", "0_0", "1_1", "2_2", "3_1")
    ]
    assert order[12:19] == [
        *(f"block35_0/branch{b}" for b in ("2_0", "1_0", "2_1", "0_0", "1_1", "2_2")),
        "block35_0/up",
    ]
    assert order[-2:] == ["block8_9/up", "conv2d_7b"]


def keras_error(found):
    with pytest.raises(CarjaxError, match="not a Keras file of inception_resnet_v2") as error:
        converter.from_keras(found)
    return str(error.value).split(": ", 1)[1]


def test_all_faults_of_a_keras_file_are_listed_at_once():
    found = {layer.name: layer for layer in keras_layers(first=500)}

    def put(name, *shapes):
        found[name] = readers.KerasLayer(name, tuple(np.zeros(shape) for shape in shapes))

    del found["conv2d_517"], found["batch_normalization_640"]
    put("conv2d_600", (3, 3, 5, 7), 1088)
    put("batch_normalization_510", 48, 48)
    put("batch_normalization_520", 32, 32, 32, 32)
    put("stranger", (5, 5), 5)
    # A lost layer is called by our name, for the file has none; the others by the file's.
    assert keras_error(found.values()).split("; ") == [
        "conv2d_600/kernel is (3, 3, 5, 7), not (1, 1, 384, 1088)",
        "missing block35_0/branch2_2/kernel (3, 3, 48, 64)",
        "batch_normalization_510/beta is (48,), not (96,)",
        "batch_normalization_510/moving_mean is (48,), not (96,)",
        "batch_normalization_520/beta is (32,), not (48,)",
        "batch_normalization_520/moving_mean is (32,), not (48,)",
        "batch_normalization_520/moving_variance is (32,), not (48,)",
        "missing batch_normalization_510/moving_variance (96,)",
        "missing block17_16/branch1_0/beta (128,)",
        "missing block17_16/branch1_0/moving_mean (128,)",
        "missing block17_16/branch1_0/moving_variance (128,)",
        "unexpected batch_normalization_520/gamma (32,)",
        "unexpected stranger/bias (5,)",
        "unexpected stranger/kernel (5, 5)",
    ]


def test_a_keras_file_without_its_classifier():
    assert keras_error(keras_layers()[:-1]) == (
        "missing classifier/bias (1000,); missing classifier/kernel (1536, 1000)"
    )


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py is not installed: pip install '.[test]'")


def write_legacy(group, layers, encode=str.encode):
    """The layout of Keras before 3: an attribute names the layers, another each one's weights."""
    group.attrs["layer_names"] = [encode(name) for name, _ in layers]
    for name, weights in layers:
        here = group.create_group(name)
        here.attrs["weight_names"] = [encode(f"{name}/{part}:0") for part in weights]
        for part, value in weights.items():
            here.create_dataset(f"{name}/{part}:0", data=value)


@pytest.mark.parametrize("encode", [str.encode, str])
@pytest.mark.parametrize("whole_model", [False, True])
def test_legacy_layout_is_read_in_its_own_order(h5py, tmp_path, encode, whole_model):
    written = [
        ("input_1", {}),
        ("conv2d_10", {"kernel": np.ones((1, 1, 2, 3)), "bias": np.zeros(3)}),
        ("conv2d_9", {"kernel": np.full((1, 1, 2, 3), 2.0)}),
        ("bn", {"beta": np.zeros(3), "moving_mean": np.ones(3), "moving_variance": np.ones(3)}),
    ]
    with h5py.File(tmp_path / "w.h5", "w") as f:
        write_legacy(f.create_group("model_weights") if whole_model else f, written, encode)
    found = readers.read_keras(tmp_path / "w.h5")
    assert [layer.name for layer in found] == ["conv2d_10", "conv2d_9", "bn"]
    for layer, (_, weights) in zip(found, written[1:], strict=True):
        for got, want in zip(layer.weights, weights.values(), strict=True):
            np.testing.assert_array_equal(got, want)


def test_keras_3_layout_is_read_in_natural_order(h5py, tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as f:
        for name in ("conv2d", "conv2d_1", "conv2d_10", "conv2d_2", "activation"):
            group = f.create_group(f"layers/{name}/vars")
            for i in range(11 if name == "conv2d_2" else 0 if name == "activation" else 1):
                group.create_dataset(str(i), data=np.full(3, i))
    found = readers.read_keras(tmp_path / "w.weights.h5")
    assert [layer.name for layer in found] == ["conv2d", "conv2d_1", "conv2d_2", "conv2d_10"]
    assert [int(w[0]) for w in found[2].weights] == list(range(11))


def test_files_that_are_no_keras_weights(h5py, tmp_path):
    with h5py.File(tmp_path / "whole.h5", "w") as f:
        write_legacy(f, [("a", {"kernel": np.ones((50, 50))})])
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:-5000])
    (tmp_path / "text.h5").write_text("hello")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["a"] = np.ones(3)
    with h5py.File(tmp_path / "lost.h5", "w") as f:
        f.attrs["layer_names"] = ["gone"]
    for name, message in {
        "cut": "not a whole Keras weights file",
        "text": "not a whole Keras weights file",
        "lost": "not a whole Keras weights file",
        "other": "no Keras weights: neither `layer_names` nor `layers`",
        "none": "no such file",
    }.items():
        with pytest.raises(CarjaxError, match=rf"{name}\.h5: {message}"):
            convert.convert_file(NAME, tmp_path / f"{name}.h5")
    with pytest.raises(CarjaxError, match=r"efficientnet_lite0 is read from a \.pth"):
        convert.convert_file("efficientnet_lite0", tmp_path / "whole.h5")


def test_keras_files_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)  # importing it then fails
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(
        CarjaxError, match=r"w\.h5: reading a Keras file needs h5py: pip install h5py"
    ):
        convert.convert_file(NAME, tmp_path / "w.h5")


def test_no_weights_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path))
    with pytest.raises(CarjaxError, match=f"`carjax weights fetch {NAME}`, or .*weights import"):
        pretrained.load_pretrained(NAME)


# --- Against Keras itself -------------------------------------------------------------------------


def randomised(path, shape, rng):
    """A value of moderate effect for any variable of a Keras model, batch norm's included."""
    part = path.rsplit("/", 1)[-1]
    if part == "moving_variance":
        return rng.uniform(0.5, 1.5, shape)
    if part in ("beta", "moving_mean", "bias"):
        return 0.1 * rng.standard_normal(shape)
    assert part == "kernel"
    return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip("keras", reason="keras is not installed: pip install '.[test-all]'")


@pytest.fixture(scope="module")
def keras_model(keras):
    keras.layers.Conv2D(1, 1)  # so that the model's own numbers do not start at the first
    with pytest.MonkeyPatch.context() as patch:
        # All values are replaced below; drawing them would compile a program for every shape.
        zeros = lambda self, shape, dtype=None: np.zeros(shape, "float32")  # noqa: E731
        patch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)
        model = keras.applications.InceptionResNetV2(weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(randomised(variable.path, variable.shape, rng).astype(np.float32))
    return model


@pytest.fixture(scope="module")
def keras_files(keras, keras_model, tmp_path_factory):
    """The same weights by Keras's own writers: the published files' layout, and that of Keras 3."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    folder = tmp_path_factory.mktemp("keras")
    with h5py.File(folder / "published.h5", "w") as f:
        legacy_h5_format.save_weights_to_hdf5_group(f, keras_model)
    keras_model.save_weights(folder / "new.weights.h5")
    return folder / "published.h5", folder / "new.weights.h5"


@pytest.mark.slow
def test_parity_with_keras_through_its_files(keras, keras_model, keras_files, tmp_path):
    published, new = keras_files
    convert.import_weights(NAME, published, tmp_path / "w.safetensors")
    _, params = pretrained.load_pretrained(NAME, tmp_path / "w.safetensors")
    for key, value in pretrained.flatten(convert.convert_file(NAME, new)).items():
        np.testing.assert_array_equal(value, pretrained.flatten(params)[key], err_msg=key)

    pixels = np.random.default_rng(1).integers(0, 256, (2, 299, 299, 3)).astype(np.float32)
    taps = ("block17_20_ac", "avg_pool", "predictions")
    tapped = keras.Model(keras_model.input, [keras_model.get_layer(n).output for n in taps])
    values = (
        [v.value for v in part]
        for part in (tapped.trainable_variables, tapped.non_trainable_variables)
    )
    inputs = keras.applications.inception_resnet_v2.preprocess_input(pixels.copy())
    (grid, pooled, logits), _ = jax.jit(tapped.stateless_call)(*values, inputs)
    expected = {"grid": grid, "pooled": pooled, "logits": logits}
    expected = {key: np.asarray(value) for key, value in expected.items()}
    assert expected["grid"].shape == (2, 17, 17, 1088)
    assert_parity(run(params, pixels), expected)


@pytest.mark.slow
def test_keras_files_are_what_the_tables_say(keras_model, keras_files):
    for path in keras_files:
        found = readers.read_keras(path)
        assert sum(w.size for layer in found for w in layer.weights) == 55_873_736
    assert keras_model.count_params() == 55_873_736


# --- Against torch itself -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("torch", reason="torch is not installed: pip install '.[test-all]'")
    if importlib.util.find_spec("pretrainedmodels") is None:
        pytest.skip("pretrainedmodels is not installed: pip install '.[test-all]'")
    import torch

    return torch


@pytest.mark.slow
def test_parity_with_torch_through_files(torch, torch_script, reference, stored, frames, tmp_path):
    model = torch_script.Reference()
    state = reference.synthetic_state(model.shapes())
    model.load(state)
    assert_parity(torch_script.summarise(model(frames)), stored)  # what `make test` compares with

    # pretrainedmodels' names, with the background class, as torch saves them.
    torch.save(model.model.state_dict(), tmp_path / "published.pth")
    convert.import_weights(NAME, tmp_path / "published.pth", tmp_path / "ours.safetensors")
    _, params = pretrained.load_pretrained(NAME, tmp_path / "ours.safetensors")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 299, 299, 3), np.uint8)
    expected = model(pixels)
    expected["logits"] = expected["logits"][:, 1:]
    assert_parity(run(params, pixels), expected)

    # timm cannot be imported without a matching torchvision; its names are the same but for the
    # classifier, which its published safetensors hold without the background class.
    timm = {k.replace("last_linear", "classif"): v for k, v in state.items()}
    timm |= {k: timm[k][1:] for k in ("classif.weight", "classif.bias")}
    assert set(timm) == set(converter.state_dict_shapes())
    safetensors.numpy.save_file(timm, tmp_path / "timm.safetensors")
    again = pretrained.flatten(convert.convert_file(NAME, tmp_path / "timm.safetensors"))
    for key, value in pretrained.flatten(params).items():
        np.testing.assert_array_equal(value, again[key], err_msg=key)
