"""Kept programs: the same numbers without tracing, and never a stale or broken one."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import plugins, programs, scoring

ARGS = (np.arange(6.0, dtype=np.float32).reshape(2, 3), np.float32(3.0))


@pytest.fixture
def folder(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    return tmp_path


@pytest.fixture
def traced():
    """(function, list that grows by one whenever the function is traced)."""
    calls = []

    @jax.jit
    def function(x, y):
        calls.append(1)
        return {"sum": x.sum() + y, "max": jnp.max(x, axis=0)}

    return function, calls


def kept(folder):
    return sorted(folder.glob("carjax-*.stablehlo"))


def test_a_kept_program_is_not_traced_again_and_gives_the_same(folder, traced):
    function, calls = traced
    first = programs.cached(function, ARGS, "a")(*ARGS)
    assert (len(calls), len(kept(folder))) == (1, 1)
    jax.clear_caches()
    second = programs.cached(function, ARGS, "a")(*ARGS)
    assert len(calls) == 1
    np.testing.assert_array_equal(second["sum"], 18.0)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_without_a_folder_of_this_machine_nothing_is_kept(tmp_path, traced, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, _ = traced
    for folder in (None, "gs://bucket/cache"):
        jax.config.update("jax_compilation_cache_dir", folder)
        assert programs.cached(function, ARGS, "a") is function
    assert list(tmp_path.iterdir()) == []


def test_another_program_shape_or_code_is_another_file(folder, traced, monkeypatch):
    function, _ = traced
    programs.cached(function, ARGS, "a")
    programs.cached(function, ARGS, "b")
    programs.cached(function, (np.zeros((2, 4), np.float32), ARGS[1]), "a")
    monkeypatch.setattr(programs, "_source_sha256", lambda: "edited")
    programs.cached(function, ARGS, "a")
    assert len(kept(folder)) == 4


def test_another_placement_or_width_of_numbers_is_another_file(folder, traced):
    function, _ = traced
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    for devices in (jax.devices(), jax.devices()[:1]):
        mesh = jax.sharding.Mesh(np.array(devices), ("data",))
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        args = (jax.device_put(x, rows), jax.device_put(np.float32(3.0), whole))
        assert float(programs.cached(function, args, "a")(*args)["sum"]) == 18.0
    with jax.enable_x64(True):
        programs.cached(function, args, "a")
    assert len(kept(folder)) == 3


def test_another_kind_or_number_of_devices_is_another_file(monkeypatch):
    kinds = (["H100"], ["H100", "H100"], ["A100"])
    names = set()
    for kind in kinds:
        devices = [types.SimpleNamespace(platform="gpu", device_kind=name) for name in kind]
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        names.add(programs._digest(ARGS, "a"))
    assert len(names) == len(kinds)


def test_another_type_or_level_of_features_is_another_program(tiny_model, monkeypatch):
    asked = []
    monkeypatch.setattr(programs, "cached", lambda f, args, static: asked.append(static) or f)
    for options in ({}, {"features": "pooled"}, {"features": "grid"}, {"dtype": jnp.float16}):
        scoring.Scorer(tiny_model, 2, **options)._program(())
    assert len(set(asked)) == 4


@pytest.mark.parametrize("content", [b"", b"no program", None], ids=["empty", "foreign", "cut"])
def test_a_broken_file_is_made_anew(folder, traced, content):
    function, _ = traced
    programs.cached(function, ARGS, "a")
    (path,) = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert float(programs.cached(function, ARGS, "a")(*ARGS)["sum"]) == 18.0
    assert path.read_bytes() == whole


def test_without_a_folder_the_function_itself_runs(traced):
    jax.config.update("jax_compilation_cache_dir", None)
    assert programs.cached(traced[0], ARGS, "a") is traced[0]


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, folder, traced):
    (tmp_path / "file").touch()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file"))
    assert float(programs.cached(traced[0], ARGS, "a")(*ARGS)["sum"]) == 18.0


def test_a_program_with_code_of_ones_own_is_kept_only_while_that_stays(
    tiny_model, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(programs, "cached", lambda f, args, static: asked.append(static) or f)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "head_of_mine.py"
    path.write_text("width = 1\n")
    plugins.load("head_of_mine", "a setting")
    head = dataclasses.replace(tiny_model.spec.heads[0], module="head_of_mine")
    spec = dataclasses.replace(tiny_model.spec, heads=(head,))
    scorer = scoring.Scorer(dataclasses.replace(tiny_model, spec=spec), 2)
    for _ in range(2):
        scorer._program(())
    path.write_text("width = 2\n")
    scorer._program(())
    assert asked[0] == asked[1] != asked[2]
    monkeypatch.setitem(sys.modules, "head_of_mine", types.ModuleType("head_of_mine"))
    assert scorer._program(()) is scorer._score  # typed in: nobody can tell whether it changed
    assert len(asked) == 3


def test_the_code_of_a_package_is_all_of_it(tmp_path, monkeypatch):
    (tmp_path / "package_of_mine" / "deep").mkdir(parents=True)
    for name in ("__init__", "heads", "deep/layers"):
        (tmp_path / "package_of_mine" / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load("package_of_mine.heads", "a setting")
    before = plugins.code_of(["package_of_mine.heads"])
    (tmp_path / "package_of_mine" / "deep" / "layers.py").write_text("depth = 3\n")
    assert before != plugins.code_of(["package_of_mine.heads"])
    assert plugins.code_of([]) == ""
    assert plugins.code_of(["registered_by_a_script"]) is None


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.slow
def test_scores_do_not_depend_on_where_the_program_comes_from(folder, tiny_model):
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)
    made = scoring.Scorer(tiny_model, 2)(frames)
    assert len(kept(folder)) == 1
    kept_ones = scoring.Scorer(tiny_model, 2)(frames)
    jax.config.update("jax_compilation_cache_dir", None)
    plain = scoring.Scorer(tiny_model, 2)(frames)
    jax.tree.map(np.testing.assert_array_equal, made, kept_ones)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), made, plain)
