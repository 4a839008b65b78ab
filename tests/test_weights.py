"""`carjax weights`: the list, the import, and each wrong call or file told in one line."""

import json
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from carjax.backbones import pretrained, registry
from carjax.backbones.convert import efficientnet_lite
from carjax.cli import main

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def state(reference):
    return reference.synthetic_state(efficientnet_lite.state_dict_shapes(NAME))


@pytest.fixture(scope="module")
def source(state, tmp_path_factory):
    """A published state dict as safetensors."""
    path = tmp_path_factory.mktemp("source") / "lite0.safetensors"
    safetensors.numpy.save_file(state, path)
    return path


def run(capsys, *words):
    """Returns the exit status and the last printed streams of a command."""
    status = main.main(["weights", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def convert(capsys, source, out, *more, name=NAME):
    return run(capsys, "import", f"--backbone={name}", f"--source={source}", f"--out={out}", *more)


def test_list_shows_every_backbone(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path))
    status, out, _ = run(capsys, "list")
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert list(rows) == list(registry.BACKBONES)
    assert "224×224" in rows["efficientnet_lite0"]
    assert "4,631,000" in rows["efficientnet_lite0"]
    assert "to import" in rows["efficientnet_lite1"]
    assert "260×260" in rows["efficientnet_lite2"]
    assert "6,063,024" in rows["efficientnet_lite2"]
    assert "shipped, 12.1 MB" in rows["efficientnet_lite2"]
    assert "299×299" in rows["inception_resnet_v2"]
    # The 55,873,736 of the reference, less its batch norms' means and variances.
    assert "55,813,192" in rows["inception_resnet_v2"]
    assert "to fetch" in rows["inception_resnet_v2"]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "inception_resnet_v2.safetensors").write_bytes(bytes(3_200_000))
    assert "fetched, 3.2 MB" in run(capsys, "list")[1]


def test_help_fits_a_screen_and_needs_no_jax():
    code = (
        "import sys; from carjax.cli.main import main; status = main(['weights', '--help']); "
        "sys.exit(status or 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) <= 24
    assert max(map(len, done.stdout.splitlines())) <= 100
    for flag in ("fetch NAME", "--backbone", "--source", "--out", "--dtype"):
        assert flag in done.stdout


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_import_then_load(dtype, source, state, tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    status, printed, _ = convert(capsys, source, out, f"--dtype={dtype}")
    assert status == 0
    assert printed.startswith(f"{out}: {NAME}, {dtype}, ")
    assert list(tmp_path.iterdir()) == [out]
    tensors = safetensors.numpy.load_file(out)
    assert {t.dtype for t in tensors.values()} == {np.dtype(dtype)}
    _, params = pretrained.load_pretrained(NAME, out)
    want = pretrained.flatten(efficientnet_lite.from_state_dict(state, NAME))
    for key, value in pretrained.flatten(params).items():
        np.testing.assert_array_equal(value, want[key].astype(dtype).astype(np.float32))


def one_line(err):
    assert err.startswith("carjax: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_faults_of_a_state_dict_are_one_line(state, tmp_path, capsys):
    bad = {k: v for k, v in state.items() if k != "_fc.bias"}
    bad["extra"] = np.zeros(3, np.float32)
    bad["_bn0.bias"] = np.zeros(5, np.float32)
    safetensors.numpy.save_file(bad, tmp_path / "bad.safetensors")
    status, _, err = convert(capsys, tmp_path / "bad.safetensors", tmp_path / "out")
    assert status == 1
    for fault in ("missing _fc.bias", "unexpected extra", "_bn0.bias is (5,), not (32,)"):
        assert fault in one_line(err)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_variant(source, tmp_path, capsys):
    status, _, err = convert(capsys, source, tmp_path / "out", name="efficientnet_lite2")
    assert status == 1
    assert "not a state dict of efficientnet_lite2" in one_line(err)


def test_truncated_or_foreign_safetensors(source, tmp_path, capsys):
    whole = source.read_bytes()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    for content in (
        whole[:-100],
        whole[:50],
        b"",
        struct.pack("<Q", len(header)) + header + b"\0\0",
    ):
        bad = tmp_path / "bad.safetensors"
        bad.write_bytes(content)
        status, _, err = convert(capsys, bad, tmp_path / "out")
        assert status == 1
        assert "bad.safetensors: not a" in one_line(err) or "not a state dict" in one_line(err)
        assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "`list`, `fetch` or `import` is needed, not nothing"),
        (["get", "it"], 2, "`list`, `fetch` or `import` is needed, not get it"),
        (["fetch"], 2, "one backbone is needed"),
        (["fetch", "resnet"], 2, "no backbone 'resnet'"),
        (["fetch", NAME], 2, f"{NAME} cannot be fetched, only inception_resnet_v2"),
        (["fetch", "inception_resnet_v2", "--source=x.h5"], 2, "x.h5: not an address"),
        (["fetch", "inception_resnet_v2", "--out=/no/such/x"], 1, "/no/such/x: not a file in"),
        (["import"], 2, "--backbone is needed"),
        (["import", f"--backbone={NAME}"], 2, "--source is needed"),
        (["import", f"--backbone={NAME}", "--source=x"], 2, "--out is needed"),
        (["import", f"--backbone={NAME}", "--source=none.pth", "--out=x"], 1, "none.pth: no such"),
        (["import", "--backbone=resnet", f"--source={__file__}", "--out=x"], 2, "no backbone"),
        (
            ["import", f"--backbone={NAME}", f"--source={__file__}", "--out=/"],
            1,
            "/: not a file in",
        ),
        (
            ["import", f"--backbone={NAME}", f"--source={__file__}", "--out=/no/such/folder/x"],
            1,
            "/no/such/folder/x: not a file in a folder that exists",
        ),
        (["list", "--dtype=float64"], 2, "float64"),
    ],
)
def test_wrong_calls(words, status, message, capsys):
    got, _, err = run(capsys, *words)
    assert got == status
    assert message in one_line(err)


def test_a_torch_file_without_torch(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it then fails
    (tmp_path / "w.pth").write_bytes(b"x")
    status, _, err = convert(capsys, tmp_path / "w.pth", tmp_path / "out")
    assert status == 1
    assert "pip install 'carjax[convert]'" in one_line(err)


def test_a_full_disk_is_one_line(source, tmp_path, capsys, disk_refuses):
    out = tmp_path / "out"
    with disk_refuses():
        status, _, err = convert(capsys, source, out)
    assert status == 1
    assert one_line(err) == f"carjax: cannot write {out}: File too large: give another --out\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_weights_that_are_not_finite_are_refused(state, tmp_path, capsys, value):
    broken = {k: v.copy() for k, v in state.items()}
    broken["_bn0.running_var"][0] = value  # its root is taken
    safetensors.numpy.save_file(broken, tmp_path / "broken.safetensors")
    status, _, err = convert(capsys, tmp_path / "broken.safetensors", tmp_path / "out")
    assert status == 1
    assert "not finite" in one_line(err)


# --- With torch -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip(
        "torch", reason="torch is not installed: pip install '.[test-all]'", exc_type=ImportError
    )


@pytest.mark.slow
def test_pth_gives_what_safetensors_give(torch, state, source, tmp_path, capsys):
    tensors = {k: torch.tensor(v) for k, v in state.items()}
    tensors["_bn0.num_batches_tracked"] = torch.tensor(7)
    tensors["_fc.bias"] = torch.nn.Parameter(tensors["_fc.bias"])
    torch.save(tensors, tmp_path / "w.pth")
    for file in (tmp_path / "w.pth", source):
        assert convert(capsys, file, tmp_path / f"{file.suffix}.out")[0] == 0
    files = [pathlib.Path(tmp_path / f"{s}.out").read_bytes() for s in (".pth", ".safetensors")]
    assert files[0] == files[1]


class Malicious:
    def __reduce__(self):
        return print, ("code from a file ran",)


@pytest.mark.slow
def test_pth_that_is_none(torch, state, tmp_path, capsys):
    torch.save({"_fc.bias": Malicious()}, tmp_path / "code.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "nested.pth")
    torch.save({k: torch.tensor(v) for k, v in state.items()}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-5000])
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "complex.pth")
    torch.save({"a": torch.zeros(2, 2).to_sparse()}, tmp_path / "sparse.pth")
    torch.save({3: torch.zeros(2)}, tmp_path / "numbered.pth")
    for name, message in {
        "code": "not a whole file of torch tensors",
        "cut": "not a whole file of torch tensors",
        "text": "not a whole file of torch tensors",
        "list": "not a state dict: it must map names to tensors",
        "numbered": "not a state dict: it must map names to tensors",
        "complex": "a: not a dense tensor of real numbers",
        "sparse": "a: not a dense tensor of real numbers",
        "nested": "not a state dict: it must map names to tensors",
    }.items():
        status, out, err = convert(capsys, tmp_path / f"{name}.pth", tmp_path / "out")
        assert status == 1
        assert f"{name}.pth: {message}" in one_line(err)
        assert "code from a file ran" not in out
