"""Kept programs: the same numbers without tracing, and never a stale or broken one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import programs, scoring

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


def test_another_program_shape_or_code_is_another_file(folder, traced, monkeypatch):
    function, _ = traced
    programs.cached(function, ARGS, "a")
    programs.cached(function, ARGS, "b")
    programs.cached(function, (np.zeros((2, 4), np.float32), ARGS[1]), "a")
    monkeypatch.setattr(programs, "_source_sha256", lambda: "edited")
    programs.cached(function, ARGS, "a")
    assert len(kept(folder)) == 4


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
    assert jax.config.jax_compilation_cache_dir is None
    assert programs.cached(traced[0], ARGS, "a") is traced[0]


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, folder, traced):
    (tmp_path / "file").touch()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file"))
    assert float(programs.cached(traced[0], ARGS, "a")(*ARGS)["sum"]) == 18.0


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
