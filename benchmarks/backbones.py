"""Images a second of the backbones: carjax against the runtimes that one would otherwise take.

    pip install '.[bench]'
    python benchmarks/backbones.py                      # float32 on the CPU's cores
    python benchmarks/backbones.py --platform=cuda      # bfloat16, batch 256, against torch.compile

EfficientNet-Lite0, Lite2 and Inception-ResNet-v2 at their own input sizes, logits of a batch from
normalised images, against torch eager, torch.compile, ONNX Runtime, OpenVINO, and Keras on JAX
(which has Inception-ResNet-v2 only). All have as many threads as there are cores; carjax has one
virtual device per core with the batch sharded over them, as the command line sets it up. Every
runtime sits in a process of its own, they take turns, and a ratio is that of medians. All but Keras
hold the same weights, and their logits are compared. A runtime that is not installed is named as
missing. The last rows: `Scorer` with and without the car box, on 640×360 frames.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import machine
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))
BATCHES = {"efficientnet_lite0": 32, "efficientnet_lite2": 32, "inception_resnet_v2": 8}
GPU_BATCH = 256
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite2": 260, "inception_resnet_v2": 299}
PACKAGES = {
    "torch": "torch",
    "torch.compile": "torch",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "Keras on JAX": "keras",
}
FRAMES, FRAME = 32, (360, 640, 3)
Step = Callable[[], np.ndarray | None]


def images(name: str, batch: int) -> np.ndarray:
    """Normalised images [B, H, W, 3], the same in every process."""
    size = SIZES[name]
    return np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


def state_dict(name: str) -> dict[str, np.ndarray]:
    """Torch's tensors of a backbone, made from their names."""
    sys.path.insert(0, str(ROOT / "tests" / "reference"))
    from make_efficientnet_lite import synthetic_state

    from carjax.backbones import convert

    return synthetic_state(getattr(convert, _module(name)).state_dict_shapes(*_which(name)))


def _module(name: str) -> str:
    return "inception_resnet_v2" if name == "inception_resnet_v2" else "efficientnet_lite"


def _which(name: str) -> tuple:
    return ("last_linear",) if name == "inception_resnet_v2" else (name,)


# --- One step of each runtime ---------------------------------------------------------------------


def carjax_step(name: str, batch: int, platform: str, folder: str) -> Step:
    import jax

    from carjax import runtime

    runtime.set_up_jax()
    jax.config.update("jax_compilation_cache_dir", None)
    import jax.numpy as jnp
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from carjax.backbones import convert, registry

    module = registry.create(name, dtype=jnp.bfloat16 if platform == "cuda" else jnp.float32)
    state = state_dict(name)
    from_state_dict = getattr(convert, _module(name)).from_state_dict
    params = from_state_dict(state) if _module(name) == name else from_state_dict(state, name)
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(images(name, batch), NamedSharding(mesh, rows))
    logits = jax.jit(
        jax.shard_map(
            lambda p, x: module.apply({"params": p}, x, method="logits"),
            mesh=mesh,
            in_specs=(PartitionSpec(), rows),
            out_specs=rows,
            check_vma=False,
        )
    )
    return lambda: np.asarray(logits(params, x))


def torch_model(name: str):
    import torch

    if name == "inception_resnet_v2":
        sys.path.insert(0, str(ROOT / "tests" / "reference"))
        from make_inception_resnet_v2 import Reference

        model = Reference(classes=1000).model
    else:
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name(name.replace("_", "-")).eval()
    tensors = {k: torch.tensor(v) for k, v in state_dict(name).items()}
    model.load_state_dict(tensors, strict=False)  # without the step counters of batch norm
    return model


def torch_step(name: str, batch: int, platform: str, folder: str, *, compiled: bool) -> Step:
    import torch

    torch.set_num_threads(CORES)
    model = torch_model(name).to(platform)
    x = torch.tensor(images(name, batch).transpose(0, 3, 1, 2)).to(platform)
    if platform == "cuda":
        model = model.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
        x = x.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
    if compiled:
        model = torch.compile(model)

    def step() -> np.ndarray:
        with torch.inference_mode():
            y = model(x)
            if platform == "cuda":
                torch.cuda.synchronize()
            return y.float().cpu().numpy()

    return step


def onnx_file(name: str, batch: int, folder: str) -> str:
    import warnings

    import torch

    path = f"{folder}/{name}.onnx"
    x = torch.tensor(images(name, batch).transpose(0, 3, 1, 2))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(torch_model(name), x, path, dynamo=False, input_names=["x"])
    return path


def onnxruntime_step(name: str, batch: int, platform: str, folder: str) -> Step:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = CORES, 1
    # Its threads must not spin while others have their turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = onnx_file(name, batch, folder)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.ascontiguousarray(images(name, batch).transpose(0, 3, 1, 2))
    return lambda: session.run(None, {"x": x})[0]


def openvino_step(name: str, batch: int, platform: str, folder: str) -> Step:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": CORES,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(onnx_file(name, batch, folder), "CPU", settings)
    x = np.ascontiguousarray(images(name, batch).transpose(0, 3, 1, 2))
    request = model.create_infer_request()
    return lambda: next(iter(request.infer({0: x}).values()))


def keras_step(name: str, batch: int, platform: str, folder: str) -> Step:
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    model = keras.applications.InceptionResNetV2(weights=None)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.path.endswith("kernel"):  # that keep the signal's power through ReLUs
            scale = (2 / np.prod(weight.shape[:-1])) ** 0.5
            weight.assign(scale * rng.standard_normal(weight.shape, np.float32))
    state = (
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
    )
    predict = jax.jit(lambda state, x: model.stateless_call(*state, x, training=False)[0])
    x = jax.device_put(images(name, batch))

    def step() -> None:
        jax.block_until_ready(predict(state, x))

    return step


def scorer_step(name: str, batch: int, platform: str, folder: str, *, localise: bool) -> Step:
    from carjax import runtime

    runtime.set_up_jax()
    from carjax import model, scoring

    one = model.load()
    scorer = scoring.Scorer(one if localise else one.with_localise(False))
    frames = np.random.default_rng(0).integers(0, 256, (batch, *FRAME), np.uint8)

    def step() -> None:
        scorer(frames)

    return step


def torch_compiled_step(*args: object) -> Step:
    return torch_step(*args, compiled=True)


def torch_eager_step(*args: object) -> Step:
    return torch_step(*args, compiled=False)


def scorer_with_box(*args: object) -> Step:
    return scorer_step(*args, localise=True)


def scorer_without_box(*args: object) -> Step:
    return scorer_step(*args, localise=False)


PEERS = {
    "torch": torch_eager_step,
    "torch.compile": torch_compiled_step,
    "ONNX Runtime": onnxruntime_step,
    "OpenVINO": openvino_step,
    "Keras on JAX": keras_step,
}


# --- Turns ----------------------------------------------------------------------------------------


def work(pipe, make: Callable[..., Step], arguments: tuple) -> None:
    """A process: makes the step, then runs it each time it is asked, and answers with seconds."""
    try:
        step = make(*arguments)
        logits = step()
        step()
        pipe.send(None if logits is None else np.asarray(logits, np.float32))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        return
    while pipe.recv():
        start = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - start)


def take_turns(makers: dict[str, Callable[..., Step]], arguments: tuple, turns: int) -> dict:
    """Runs every step in its own process, one at a time; the first is compared with the others."""
    context = multiprocessing.get_context("spawn")
    figures: dict[str, dict] = {}
    pipes, processes, reference = {}, [], None
    for name, make in makers.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, make, arguments), daemon=True)
        process.start()
        answer = ours.recv()
        if isinstance(answer, str):
            print(f"  {name}: cannot run ({answer})", flush=True)
            continue
        figures[name] = {}
        if answer is not None and reference is not None:
            error = np.abs(answer - reference).max() / np.abs(reference).max()
            figures[name]["logits_difference"] = float(f"{error:.1e}")
        reference = answer if reference is None else reference
        pipes[name] = ours
        processes.append(process)
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(turns):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    batch = arguments[1]
    for name, values in seconds.items():
        figures[name]["images_per_s"] = round(batch / statistics.median(values), 2)
        figures[name]["best_images_per_s"] = round(batch / min(values), 2)
    return figures


def installed() -> dict[str, Callable[..., Step]]:
    """The peers that there are; says which are missing."""
    found, missing = {}, []
    for name, make in PEERS.items():
        try:
            importlib.metadata.version(PACKAGES[name])
            found[name] = make
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        print(f"missing: {', '.join(missing)} (pip install '.[bench]')")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--platform", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", default="", help="efficientnet_lite2,…,scoring; default: all")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    gpu = arguments.platform == "cuda"
    peers = installed()
    if gpu:
        peers = {k: v for k, v in peers.items() if k.startswith("torch")}
    every = ["inception_resnet_v2"] if gpu else [*BATCHES, "scoring"]
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models.split(",") if arguments.models else every:
            if name == "scoring":
                makers = {"with car box": scorer_with_box, "without": scorer_without_box}
                batch = FRAMES
            else:
                makers = {"carjax": carjax_step, **peers}
                batch = GPU_BATCH if gpu else BATCHES[name]
                if not name.startswith("inception"):
                    makers.pop("Keras on JAX", None)
            print(f"{name}, batch {batch}", flush=True)
            rows = take_turns(makers, (name, batch, arguments.platform, folder), arguments.turns)
            first = next(iter(rows.values()))["images_per_s"]
            for peer, row in rows.items():
                row["ours_over_this"] = round(first / row["images_per_s"], 3)
                print(
                    f"  {peer:<14} {row['images_per_s']:8.2f} images/s (best"
                    f" {row['best_images_per_s']:.2f})   ratio {row['ours_over_this']:.2f}",
                    flush=True,
                )
            figures[name] = {"batch": batch, **rows}
    versions = {p: importlib.metadata.version(PACKAGES[p]) for p in peers}
    file = "backbones_speed_cuda.json" if gpu else "backbones_speed.json"
    if arguments.models and (machine.RESULTS / file).is_file():  # the others' figures stay
        before = json.loads((machine.RESULTS / file).read_text())
        figures = {k: v for k, v in before.items() if k in every} | figures
    machine.save(
        file,
        {
            "command": "python benchmarks/backbones.py" + " --platform=cuda" * gpu,
            "threads": CORES,
            "turns": arguments.turns,
            "dtype": "bfloat16" if gpu else "float32",
            "versions": versions,
            **figures,
        },
    )


if __name__ == "__main__":
    main()
