"""Files are whole or not there at all, on disk and in a bucket."""

import importlib.util
import pathlib

import pytest
import safetensors
from etils import epath

from carjax import files, model
from carjax.errors import CarjaxError


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """What `bucket://…` stands for: a folder, behind the same registry as gs:// and s3://."""
    folder = tmp_path_factory.mktemp("bucket")

    @epath.register_path_cls("bucket://")
    class Bucket:
        def __new__(cls, uri):
            return folder / uri.removeprefix("bucket://")

    return folder


def write_half(path):
    def write():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    write_half(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_bucket_that_no_package_reaches_is_one_line(monkeypatch):
    known = importlib.util.find_spec
    missing = ("gcsfs", "tensorflow")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else known(name)
    )
    with pytest.raises(CarjaxError, match=r"gs://a/b: gs:// needs .*: pip install gcsfs"):
        files.locate("gs://a/b")


def test_an_object_in_a_bucket_appears_only_when_it_is_whole(bucket):
    write_half("bucket://a.txt")
    assert not (bucket / "a.txt").exists()
    with files.replacing("bucket://a.txt") as temporary:
        temporary.write_text("whole")
        assert not (bucket / "a.txt").exists()
    assert files.locate("bucket://a.txt").read_text() == "whole"


def test_a_bundle_is_saved_to_a_bucket(bucket, tiny_model):
    model.save(tiny_model, "bucket://tiny.safetensors")
    with safetensors.safe_open(bucket / "tiny.safetensors", "numpy") as f:
        assert "carjax_bundle" in f.metadata()


def test_where_paths_lead(monkeypatch):
    monkeypatch.setattr(files, "_DRIVERS", {})  # as if they were there
    assert files.locate("out/run") == pathlib.Path("out/run")
    assert not files.is_remote("/a/b")
    assert files.is_remote("gs://bucket/run")
    assert str(files.locate("gs://bucket/run") / "x") == "gs://bucket/run/x"
    with pytest.raises(CarjaxError, match=r"cloud://x: no such kind of bucket.*gs://"):
        files.locate("cloud://x")


def test_the_cache_stays_where_it_is_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARJAX_CACHE_DIR", "kept")
    assert files.cache_dir() == tmp_path / "kept"


def test_processes_of_one_number_write_to_names_of_their_own(tmp_path, monkeypatch):
    """As the first processes of two containers, which share a folder."""
    monkeypatch.setattr("os.getpid", lambda: 1)
    target = tmp_path / "x"
    with files.replacing(target) as one, files.replacing(target) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]
