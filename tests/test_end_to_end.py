"""The reference design from end to end: five runs on Inception-ResNet-v2, a bundle, a video.

The published ImageNet weights cannot be part of a test: random ones show that the pieces fit, that
nothing but the head trains, and that `select` runs on what was trained.
"""

import json
import pathlib

import cv2
import flax.traverse_util
import numpy as np
import pytest

from carjax import model
from carjax.attributes import CAR, VEHICLE_CLASSES
from carjax.backbones import pretrained
from carjax.cli.main import main as carjax
from carjax.training import config as configs

ROOT = pathlib.Path(__file__).parents[1]
BACKBONE, SIZE = "inception_resnet_v2", 139
NAMES = [a.name for a in CAR]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights whose classifier calls everything a vehicle, so that the video has a car."""
    rng = np.random.default_rng(0)
    flat = {}
    for key, shape in pretrained.expected_shapes(BACKBONE).items():
        scale = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[:-1]))
        flat[key] = scale * rng.standard_normal(shape, np.float32)
    flat["classifier/bias"] = np.full(1000, -20.0, np.float32)
    flat["classifier/bias"][list(VEHICLE_CLASSES)] = 20.0
    path = tmp_path_factory.mktemp("weights") / "irv2.safetensors"
    pretrained.save(flax.traverse_util.unflatten_dict(flat, sep="/"), path, np.float32)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Sixteen photos with every label."""
    folder = tmp_path_factory.mktemp("data") / "stanford_cars"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["file,class_name,make,type,doors,seats,azimuth_deg"]
    for i in range(16):
        image = rng.integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), image)
        make, kind = ("Audi", "sedan") if i % 2 else ("BMW", "SUV")
        rows.append(f"{i}.jpg,{make} {kind},{make},{kind},{2 + i % 4},5,{22.5 * i}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder.parent


@pytest.mark.slow
def test_five_runs_a_bundle_and_a_video(weights, root, tmp_path, monkeypatch):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path / "cache"))
    before = weights.read_bytes()
    for name in NAMES:
        config = configs.default_config(name)
        config.update(backbone=BACKBONE, backbone_weights=str(weights), input_size=SIZE)
        config.update(views=2, steps=4, chunk=2, batch=8, warmup=1, mixup=0.0)
        config.head.hidden = 16
        file = tmp_path / f"{name}.py"
        file.write_text(
            "import ml_collections\n"
            f"def get_config():\n    return ml_collections.ConfigDict({config.to_dict()!r})\n"
        )
        words = ["train", f"--config={file}", f"--workdir={tmp_path / name}", "--quiet"]
        assert carjax([*words, f"--data_dir={root}"]) == 0
    folders = ",".join(str(tmp_path / name) for name in NAMES)
    bundle = tmp_path / "reference.safetensors"
    words = ["bundle", f"--heads={folders}", f"--out={bundle}", "--name=reference"]
    assert carjax([*words, f"--backbone_weights={weights}"]) == 0

    out = tmp_path / "out"
    words = ["select", str(ROOT / "data" / "prius_walkaround.mp4"), f"--out={out}", "--fps=1"]
    words += [f"--model={bundle}", f"--backbone_weights={weights}", "--nolocalise"]
    assert carjax(words) == 0
    chosen = json.loads((out / "selection.json").read_text())
    assert [*chosen["attributes"], "orientation"] == NAMES
    assert chosen["model"] == {
        "backbone": BACKBONE,
        "bundle": "reference",
        "version": chosen["model"]["version"],
    }

    assert weights.read_bytes() == before
    loaded = model.load(bundle, backbone_weights=weights)
    stored = pretrained.read_safetensors(weights)
    for key, value in pretrained.flatten(loaded.params["backbone"]).items():
        np.testing.assert_array_equal(value, stored[key])
