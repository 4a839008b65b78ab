"""Reference outputs of Inception-ResNet-v2, computed once by an independent torch implementation.

    python tests/reference/make_inception_resnet_v2.py

needs `pip install '.[test-all]'` and writes, beside this file, `inception_resnet_v2.npz`: of the
first two frames in `inputs.npz`, squashed to 139 × 139, `logits` [2, 1001] (the first row is the
background class), `pooled` [2, 1536], `grid` (every third cell of the 7 × 7 × 1088 feature grid),
`grid_mean` [2, 7, 7] and `grid_max` [2], all float32.

The implementation is `pretrainedmodels.models.inceptionresnetv2` of PyPI's `pretrainedmodels`, and
its weights are those that `make_efficientnet_lite.synthetic_state` makes from names and shapes.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping

import numpy as np

HERE = pathlib.Path(__file__).parent
SIZE = 139
FRAMES = 2
GRID_STEP = 3


def normalize(images: np.ndarray) -> np.ndarray:
    """Maps pixels to −1..1, the input range of the published weights."""
    return (images.astype(np.float32) - 127.5) / 127.5


class Reference:
    """The torch model, by default with its background class, for inputs of any size."""

    def __init__(self, classes: int = 1001) -> None:
        import torch

        # The package imports torchvision, whose build must match torch's; this file does not.
        package = importlib.util.find_spec("pretrainedmodels")
        path = pathlib.Path(package.origin).parent / "models" / "inceptionresnetv2.py"
        spec = importlib.util.spec_from_file_location("inceptionresnetv2", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.torch = torch
        self.model = module.InceptionResNetV2(num_classes=classes).eval()
        self.grid = None
        self.model.repeat_1.register_forward_hook(self._keep_grid)

    def _keep_grid(self, module, inputs, output) -> None:
        self.grid = output

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of every tensor of the model's own state dict."""
        return {k: tuple(v.shape) for k, v in self.model.state_dict().items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets every tensor but the step counters of batch norm, which evaluation ignores."""
        state = {k: self.torch.tensor(np.asarray(v)) for k, v in state.items()}
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        faults = [k for k in missing if not k.endswith("num_batches_tracked")] + unexpected
        if faults:
            raise ValueError(f"tensors do not fit: {faults}")

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns logits [B, 1001], pooled [B, 1536] and grid [B, g, g, 1088] of pixels."""
        with self.torch.no_grad():
            x = self.torch.tensor(normalize(images).transpose(0, 3, 1, 2))
            # `logits` pools 8 × 8 cells, whatever the size: the mean is the same at 299 pixels.
            pooled = self.model.features(x).mean((2, 3))
            logits = self.model.last_linear(pooled)
        grid = self.grid.numpy().transpose(0, 2, 3, 1)
        return {"logits": logits.numpy(), "pooled": pooled.numpy(), "grid": grid}


def summarise(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces the feature grid by every third cell, its mean over channels and its maximum."""
    grid = np.asarray(outputs["grid"])
    return {
        "logits": np.asarray(outputs["logits"]),
        "pooled": np.asarray(outputs["pooled"]),
        "grid": grid[:, ::GRID_STEP, ::GRID_STEP],
        "grid_mean": grid.mean(-1),
        "grid_max": np.abs(grid).max((1, 2, 3)),
    }


def main() -> None:
    """Writes the reference file."""
    from make_efficientnet_lite import squash, synthetic_state

    with np.load(HERE / "inputs.npz") as inputs:
        frames = np.stack([squash(frame, SIZE) for frame in inputs["frames"][:FRAMES]])
    reference = Reference()
    reference.load(synthetic_state(reference.shapes()))
    arrays = summarise(reference(frames))
    np.savez_compressed(HERE / "inception_resnet_v2.npz", **arrays)
    print(*(f"{k} {v.shape}, up to {np.abs(v).max():.3g}" for k, v in arrays.items()), sep="\n")


if __name__ == "__main__":
    main()
