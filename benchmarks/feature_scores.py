"""Scores of novelty that read a head's inner layers: energy, nearest neighbours, Mahalanobis.

`benchmarks/nested.py` compares them with what the stated distribution says by itself.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np

from carjax import heads, model

NEIGHBOURS = 10


def scores(run: pathlib.Path, config: Any, values: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores a run's held-out photos; larger is more novel.

    * energy: −log Σ exp of the logits, the mean over the members (Liu et al., NeurIPS 2020);
    * nearest neighbour: distance to the tenth nearest training photo among the hidden vectors of
      the first member, scaled to length one (Sun et al., ICML 2022);
    * Mahalanobis: squared distance of that hidden vector to the nearest car model's mean, under the
      covariance within models (Lee et al., NeurIPS 2018).

    Returns:
        (names of the photos, score name → float [m]).
    """
    from carjax.datasets import photos
    from carjax.training import data, tasks
    from carjax.training.prediction import predict_all

    root = photos.data_root(values.data_dir)
    task = tasks.create(config, data.part_keys(config, root))
    found = model.load(run)
    sources = data.load_sources(
        config, task, root, None, {}, found.card["backbone_sha256"], cache_dir=values.cache_dir
    )  # fmt: skip
    params = found.params["heads"][config.attribute]
    spec = found.spec.head(config.attribute)
    trunk, head = heads.Trunk(spec, 0.0), heads.CategoricalHead(spec)
    own = params["trunk_0"] if spec.members > 1 else params["trunk"]

    @jax.jit
    def read(params: Any, features: Any) -> tuple[jax.Array, jax.Array]:
        logits: Any = head.apply({"params": params}, features, method="part_logits")
        return trunk.apply({"params": own}, features), -jax.nn.logsumexp(logits, -1).mean(0)

    def read_all(features: Any) -> tuple[np.ndarray, np.ndarray]:
        hidden, energy = predict_all(read, features, params)
        return hidden.astype(np.float64), energy

    trained = data.training_set(sources, task, (0,))
    seen, _ = read_all(jax.tree.map(lambda x: x[0], trained.features))
    held_out = data.held_out_set(sources, task)
    hidden, energy = read_all(held_out.features)
    group = trained.targets[0, :, 1]
    means = np.stack([seen[group == g].mean(0) for g in np.unique(group)])
    within = seen - means[np.searchsorted(np.unique(group), group)]
    ridge = 1e-3 * within.var() * np.eye(within.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(within.T @ within / len(within) + ridge))
    return held_out.names, {
        "energy": energy,
        "nearest neighbour": _nearest(_unit(hidden), _unit(seen), NEIGHBOURS),
        "Mahalanobis": _nearest(hidden @ whiten, means @ whiten, 1),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _nearest(x: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each row to the k-th nearest of the others."""
    squared = (x**2).sum(1)[:, None] - 2 * x @ others.T + (others**2).sum(1)
    return np.partition(squared, k - 1, axis=1)[:, k - 1]
