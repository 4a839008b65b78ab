"""What the tests share: two virtual devices, where the third-party photos are, and a tiny model."""

import contextlib
import importlib.util
import os
import pathlib
import resource
import sys

import jax
import numpy as np
import pytest
from hypothesis import settings

# Two devices, as the command line makes one per core: sharding is then tested on every machine.
if "JAX_NUM_CPU_DEVICES" not in os.environ:
    jax.config.update("jax_num_cpu_devices", 2)

# A first call compiles: its time says nothing.
settings.register_profile("carjax", deadline=None)
settings.load_profile("carjax")

ROOT = pathlib.Path(__file__).parents[1]


COMPILED_PROGRAMS = jax.config.values["jax_compilation_cache_dir"]


@pytest.fixture(autouse=True)
def compiled_programs_folder():
    """A command called by another test, or by its fixtures, has set it for its own process."""
    jax.config.update("jax_compilation_cache_dir", COMPILED_PROGRAMS)


@pytest.fixture(scope="session")
def carjax_data():
    """The folder of third-party photos; tests that need it skip without it."""
    folder = os.environ.get("CARJAX_DATA")
    if not folder:
        pytest.skip("CARJAX_DATA is not set: it names the folder of third-party photos")
    return pathlib.Path(folder)


def load_module(path):
    """Imports a Python file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference():
    """The module that made the files in tests/reference (it imports torch only when asked to)."""
    return load_module(ROOT / "tests" / "reference" / "make_efficientnet_lite.py")


@pytest.fixture
def disk_refuses():
    """A context in which files cannot grow beyond a few kB: a full disk is not at hand."""

    @contextlib.contextmanager
    def refusing(most=2**12):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return refusing


@pytest.fixture(scope="session")
def published():
    """The module that lays out small data sets in the formats in which they are published."""
    return load_module(ROOT / "tests" / "reference" / "published_trees.py")


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles with few optimisations, for modules that run far less than they compile."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def synthetic_params(reference):
    """Name of a backbone → its parameters with the synthetic weights of tests/reference."""
    from carjax.backbones.convert import efficientnet_lite

    def make(name):
        state = reference.synthetic_state(efficientnet_lite.state_dict_shapes(name))
        return efficientnet_lite.from_state_dict(state, name)

    return make


@pytest.fixture(scope="session")
def random_tree():
    """(shapes, seed) → a pytree of moderate random float32 arrays of those shapes."""

    def make(shapes, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(shape):
            scale = 1.0 if len(shape.shape) < 2 else np.prod(shape.shape[:-1]) ** -0.5
            return jax.numpy.asarray(scale * rng.standard_normal(shape.shape), jax.numpy.float32)

        return jax.tree.map(leaf, shapes)

    return make


@pytest.fixture
def tiny(monkeypatch):
    """Registers the small backbone under the name 'tiny', with fixed weights; returns those."""
    import tiny_run

    return tiny_run.register(monkeypatch.setattr)


@pytest.fixture(scope="session")
def tiny_model(synthetic_params, random_tree):
    """The car's schema on efficientnet_lite0 at 64 pixels, with a car box; all weights random."""
    from carjax import attributes, heads, localise, model

    spec = model.Spec(
        backbone="efficientnet_lite0",
        heads=tuple(heads.HeadSpec(a, grid=2, channels=8, hidden=16) for a in attributes.CAR),
        localise=localise.LocaliseSpec(input_size=64, looks=1, channels=8, margin=0.05),
        input_size=64,
        content=heads.HeadSpec(attributes.CONTENT, grid=2, channels=4, hidden=8),
    )
    backbone = jax.tree.map(jax.numpy.asarray, synthetic_params(spec.backbone))
    tree = random_tree(model.expected_params(spec))
    # Boxes of about half the window, so that the crop is not the whole frame.
    tree["localise"]["out"]["kernel"] = 0.1 * tree["localise"]["out"]["kernel"]
    tree["localise"]["out"]["bias"] = jax.numpy.full(5, -1.5)
    card = {"name": "tiny", "backbone_sha256": model.weights_hash(backbone)}
    return model.Model({"backbone": backbone, **tree}, spec, card)
