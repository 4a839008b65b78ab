"""Trains a tiny run in a process of its own: any number of devices, one process of several.

python tests/tiny_run.py ROOT WORKDIR DEVICES [PROCESSES PROCESS_ID PORT] [--name=JSON …]
"""

import contextlib
import json
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from carjax import backbones
from carjax.backbones import pretrained, registry
from carjax.features import Features
from carjax.training import checkpoints
from carjax.training import config as configs

SIZE = 32


class Killed(Exception):
    """What a run is stopped by."""


@contextlib.contextmanager
def killed(monkeypatch, step):
    """The run inside must die once the line of that step is written, and its checkpoint is not."""
    save = checkpoints.Checkpoints.save

    def dies(self, at, state):
        if at == step:
            raise Killed
        save(self, at, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", dies)
        with pytest.raises(Killed):
            yield


class Tiny(nn.Module):
    """A backbone that compiles at once: averages of pixels, and one convolution."""

    dtype: jnp.dtype = jnp.float32

    @nn.nowrap
    def feature_shapes(self, input_size):
        return (8,), (4, 4, 8)

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), strides=4, dtype=self.dtype, name="stem")(x)
        grid = x.reshape(x.shape[0], 4, 2, 4, 2, 8).mean((2, 4))
        return Features(grid.mean((1, 2)), grid)

    @nn.nowrap
    def classify(self, features):
        return jnp.zeros((len(features.pooled), 1000))

    def logits(self, x):
        return self.classify(self(x))


def register(patch):
    """Registers the small backbone as 'tiny', with fixed weights, and returns those.

    `patch(object, name, value)` sets an attribute.
    """
    entry = registry.Backbone("tiny", SIZE, 127.0, 128.0, lambda **kw: Tiny(name="tiny", **kw))
    patch(registry, "BACKBONES", {**registry.BACKBONES, "tiny": entry})
    params = registry.create("tiny").init(jax.random.key(7), jnp.zeros((1, SIZE, SIZE, 3)))
    params = params["params"]

    def load_pretrained(name, path=None, *, dtype=jnp.float32):
        return registry.create("tiny", dtype=dtype), params

    patch(backbones, "load_pretrained", load_pretrained)
    patch(pretrained, "read", lambda name, path=None: (params, "tiny"))
    return params


def settings(root, attribute="doors", **changes):
    """A config that trains the tiny backbone's head in a moment."""
    config = configs.default_config(attribute)
    config.backbone = "tiny"
    config.splits = str(pathlib.Path(root) / "splits")
    config.update(dict(views=2, batch=8, steps=6, chunk=2, warmup=0, fold=1, mixup=0.0))
    if attribute == configs.LOCALISE:
        config.datasets = ("car_boxes",)
        config.input_size = config.head.input_size = SIZE
        config.head.channels = 8
    else:
        config.cells = config.head.grid = 2
        config.head.hidden = 8
    config.update(changes)
    return config


def main(root, workdir, devices, *rest):
    changes = dict(word[2:].split("=", 1) for word in rest if word.startswith("--"))
    place = [word for word in rest if not word.startswith("--")]
    jax.config.update("jax_num_cpu_devices", int(devices))
    if place:
        processes, process_id, port = map(int, place)
        jax.distributed.initialize(f"localhost:{port}", processes, process_id)
    from carjax.training import loop

    register(setattr)
    config = settings(root, **{name: json.loads(value) for name, value in changes.items()})
    loop.train_and_evaluate(
        config, workdir, root, cache_dir=pathlib.Path(root) / "cache", quiet=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
