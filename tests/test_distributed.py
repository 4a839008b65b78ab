"""One run on one device, on eight, and in two processes: the same head."""

import pathlib
import shutil
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
import safetensors.numpy

SCRIPT = pathlib.Path(__file__).with_name("tiny_run.py")
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Sixteen photos whose colour tells the number of doors."""
    folder = tmp_path_factory.mktemp("data")
    images = folder / "stanford_cars" / "images"
    images.mkdir(parents=True)
    (folder / "splits").mkdir()
    rng = np.random.default_rng(0)
    labels, folds = ["file,class_name,make,type,doors,seats,azimuth_deg"], ["file,fold"]
    for i in range(16):
        image = rng.integers(0, 90, (40, 60, 3), np.uint8)
        image[..., 2 * (i % 2)] += 120
        cv2.imwrite(str(images / f"{i}.png"), image)
        labels.append(f"{i}.png,model,Audi,sedan,{'24'[i % 2]},5,{20 * i}")
        folds.append(f"{i}.png,{i % 4}")
    (folder / "stanford_cars" / "labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "splits" / "stanford_cars.csv").write_text("\n".join(folds) + "\n")
    return folder


def start(root, workdir, devices, *words):
    command = [sys.executable, str(SCRIPT), str(root), str(workdir), str(devices), *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    try:
        for process in processes:
            _, error = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, error[-3000:]
    finally:
        for process in processes:
            process.kill()


def with_free_port(run):
    """Runs it with a port; with another one where a process of others took that in between."""
    for left in (2, 1, 0):
        with socket.socket() as s:
            s.bind(("localhost", 0))
            port = s.getsockname()[1]
        try:
            return run(port)
        except AssertionError as error:
            if not left or "Failed to start RPC server" not in str(error):
                raise


def head(workdir):
    tensors = safetensors.numpy.load_file(workdir / "head.safetensors")
    return {k: v for k, v in tensors.items() if k.startswith("heads/")}


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        # Written as float16: one unit in its last place, and 1e-5 for what is near zero.
        np.testing.assert_allclose(value, b[name], rtol=1e-3, atol=1e-5, err_msg=name)


def losses(workdir):
    rows = (workdir / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss")
    return [float(row.split(",")[column]) for row in rows[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "batch"),
    # Six rows are shared evenly by two processes, and by their four devices not.
    [("true", 8), ("false", 8), ("false", 6)],
    ids=["cached", "live", "live, not for every device the same"],
)
def test_devices_and_processes_change_nothing(root, tmp_path, cache, batch):
    flags = (f"--cache={cache}", f"--batch={batch}")
    one, eight, two = (tmp_path / name for name in ("one", "eight", "two"))
    finish(start(root, one, 1, *flags))
    finish(start(root, eight, 8, *flags))
    with_free_port(
        lambda port: finish(*(start(root, two, 2, 2, i, port, *flags) for i in range(2)))
    )
    for other in (eight, two):
        same(head(one), head(other))
        np.testing.assert_allclose(losses(one), losses(other), rtol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_is_restored_onto_another_number_of_devices(root, tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    finish(start(root, whole, 8))
    shutil.copytree(whole, moved)
    # As if the last chunk had been lost with the machine.
    shutil.rmtree(moved / "checkpoints" / "6")
    (moved / "head.safetensors").unlink()
    finish(start(root, moved, 2))
    same(head(whole), head(moved))
    np.testing.assert_allclose(losses(whole), losses(moved), rtol=1e-5)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_repeats_its_losses_bit_for_bit(root, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    many = ("--steps=100", "--chunk=2")
    finish(start(root, whole, 2, *many))
    process = start(root, killed, 2, *many)
    # Dead at once, as soon as a few chunks are behind it.
    curves = killed / "metrics.csv"
    while process.poll() is None and not (curves.exists() and len(losses(killed)) > 3):
        pass
    process.kill()
    process.wait()
    assert not (killed / "head.safetensors").exists()
    finish(start(root, killed, 2, *many))
    assert (whole / "metrics.csv").read_bytes() == (killed / "metrics.csv").read_bytes()
    a, b = head(whole), head(killed)
    assert all(np.array_equal(a[name], b[name]) for name in a)
