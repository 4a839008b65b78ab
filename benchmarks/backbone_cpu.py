"""What the CPU forms of the backbone and of the resampling gain, against the plain forms.

    python benchmarks/backbone_cpu.py

Backbone: EfficientNet-Lite2 at 260 pixels, whose depthwise convolutions are shifted multiply-adds
and whose 1×1 convolutions are matrix products, against `lax.conv_general_dilated` for both.
Resampling: 720p frames to 260 pixels by short dot products, against dense matrix products.
The forms take turns within one process on one device; a figure is the best of its turns.
"""

import functools
import statistics
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import machine
import numpy as np

from carjax import crops
from carjax.backbones import layers, pretrained, registry

NAME = "efficientnet_lite2"
BATCH = 8
TURNS = 7


def plain_layers(
    call: Callable[..., jax.Array], args: tuple, kwargs: dict, context: nn.module.InterceptorContext
) -> jax.Array:
    """Flax interceptor that runs depthwise and 1×1 layers as plain convolutions."""
    module = context.module
    if not isinstance(module, layers.DepthwiseConv | layers.PointwiseConv):
        return call(*args, **kwargs)
    (x,) = args
    kernel = module.get_variable("params", "kernel")
    bias = module.get_variable("params", "bias")
    if isinstance(module, layers.DepthwiseConv):
        return layers.depthwise_conv_direct(x, kernel, module.stride) + bias
    return (
        jax.lax.conv_general_dilated(
            x, kernel[None, None], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        + bias
    )


def take_turns(forms: dict[str, Callable[[], jax.Array]], items: int) -> dict:
    """Times the forms in turns, after one call each that compiles."""
    results = {name: np.asarray(form()) for name, form in forms.items()}
    plain, ours = results.values()
    error = float(np.abs(plain - ours).max() / np.abs(plain).max())
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(TURNS):
        for name, form in forms.items():
            start = time.perf_counter()
            form().block_until_ready()
            seconds[name].append(time.perf_counter() - start)
    figures: dict = {
        name: {
            "images_per_s": round(items / min(values), 2),
            "median_images_per_s": round(items / statistics.median(values), 2),
        }
        for name, values in seconds.items()
    }
    before, after = (min(values) for values in seconds.values())
    figures["ratio"] = round(before / after, 2)
    figures["max_relative_difference"] = error
    return figures


def backbone() -> dict:
    module, params = pretrained.load_pretrained(NAME)
    size = registry.spec_of(NAME).input_size
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (BATCH, size, size, 3)), jnp.float32)
    logits = functools.partial(module.apply, method="logits")

    @jax.jit
    def plain(params: dict, images: jax.Array) -> jax.Array:
        with nn.intercept_methods(plain_layers):
            return logits({"params": params}, images)

    ours = jax.jit(lambda params, images: logits({"params": params}, images))
    forms = {
        "plain convolutions": lambda: plain(params, images),
        "shifted and matrix products": lambda: ours(params, images),
    }
    return take_turns(forms, BATCH)


def resampling() -> dict:
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.integers(0, 256, (BATCH, 720, 1280, 3)), jnp.uint8)
    boxes = crops.full_boxes(BATCH, 720, 1280)
    size = registry.spec_of(NAME).input_size
    dense_one = functools.partial(crops._resample, size=size, taps=(0, 0), axis_op=crops._dense)
    valid, blur = jnp.array([720.0, 1280.0]), jnp.array(1.0)
    dense = jax.jit(jax.vmap(lambda frame, box: dense_one(frame, box, valid, blur)))
    banded = jax.jit(lambda frames, boxes: crops.crop_and_resize(frames, boxes, size))
    forms = {"dense": lambda: dense(frames, boxes), "banded": lambda: banded(frames, boxes)}
    return take_turns(forms, BATCH)


def main() -> None:
    figures = {"backbone": backbone(), "resampling_720p": resampling()}
    for what, rows in figures.items():
        for form, row in rows.items():
            print(f"{what}: {form}: {row}")
    machine.save("backbone_cpu.json", {"batch": BATCH, "turns": TURNS, **figures})


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
