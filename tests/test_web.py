"""`carjax serve` over HTTP: a job from upload to zip, and its edits; with the network blocked."""

import errno
import fcntl
import io
import json
import os
import pathlib
import re
import shutil
import signal
import threading
import zipfile

import cv2
import jsonschema
import numpy as np
import pytest
from web_server import ROOT, SAMPLE, serving
from web_server import client as own_client

from carjax import selection, video
from carjax.attributes import VIEWS
from carjax.cli import main as command
from carjax.cli import serve
from carjax.errors import CarjaxError
from carjax.web import guard, results


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("serve")) as server:
        yield server


@pytest.fixture(scope="module")
def job(server):
    """(id, every status on the way) of the sample."""
    identity = server.submit(name="../../My walk.mp4", known="doors:5")
    return identity, server.events(identity)


def get(server, path):
    answer = server.client.get(path)
    assert answer.status_code == 200, answer.text
    return answer


def chosen(server, job):
    return get(server, f"/jobs/{job}/selection.json").json()


def archive(server, job):
    return zipfile.ZipFile(io.BytesIO(get(server, f"/jobs/{job}/zip").content))


def picture(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_the_server_answers_before_the_model_is_there(server):
    about = get(server, "/about").json()
    assert about["megabytes"] > 0
    assert not about["busy"]


def test_the_form_in_the_docs_is_taken(server):
    text = (ROOT / "docs" / "serve.md").read_text()
    fields = dict(re.findall(r"-F (\w+)=([\w,:]+)", text))
    assert fields.keys() == {"attributes", "known"}
    identity = server.submit(**fields)
    assert server.client.delete(f"/jobs/{identity}").status_code == 204


def test_a_job_passes_its_stages_in_order(job):
    _, statuses = job
    states = [s["state"] for s in statuses]
    assert states == sorted(states, key=["queued", "running", "done"].index)
    assert states[-1] == "done", statuses[-1]
    stages = [s["stage"] for s in statuses if s["state"] == "running"]
    assert stages == sorted(stages, key=["decoding", "scoring", "writing"].index)
    assert {"scoring", "writing"} <= set(stages)
    frames = [s["frames"] for s in statuses]
    assert frames == sorted(frames)
    assert frames[-1] == statuses[-1]["expected_frames"] > 50
    assert any(s["remaining_s"] for s in statuses)


def test_the_selection_is_that_of_the_command(server, job):
    content = chosen(server, job[0])
    jsonschema.validate(content, selection.schema())
    assert content["video"]["path"] == "My walk.mp4"
    assert tuple(content["orientation"]["views"]) == VIEWS
    assert content["attributes"]["doors"]["value"] == "5"
    for choice in content["attributes"].values():
        size = picture(get(server, f"/jobs/{job[0]}/{choice['photo']}").content).shape
        assert size == (360, 640, 3)


def test_the_zip_sorts_in_walking_order_and_its_names_agree(server, job):
    with archive(server, job[0]) as held:
        names = held.namelist()
        assert names[:3] == ["01_front.jpg", "02_front-left.jpg", "03_left.jpg"]
        assert names[8:] == [
            *("09_type.jpg", "10_brand.jpg", "11_doors.jpg", "12_seats.jpg"),
            *("selection.json", "report.html"),
        ]
        content = json.loads(held.read("selection.json"))
        jsonschema.validate(content, selection.schema())
        front = content["orientation"]["views"]["front"]
        assert front["photo"] == "01_front.jpg"
        true = video.grab(SAMPLE, {front["frame"]})[front["frame"]]
        assert np.abs(picture(held.read("01_front.jpg")).astype(int) - true).mean() < 4
        report = held.read("report.html").decode()
        assert 'href="01_front.jpg"' in report


def test_details_hold_a_series_charts_and_alternatives(server, job):
    details = get(server, f"/jobs/{job[0]}/details").json()
    count = len(details["series"]["frame"])
    assert count == details["video"]["scored_frames"]
    assert {len(a["certainty"]) for a in details["series"]["attributes"].values()} == {count}
    names = [t["name"] for t in details["timelines"]]
    assert names == ["type", "brand", "doors", "seats", "direction", "kappa"]
    content = chosen(server, job[0])
    for name, others in details["alternatives"].items():
        frames = [other["frame"] for other in others]
        choice = content["attributes"].get(name) or content["orientation"]["views"][name[5:]]
        assert choice["frame"] not in frames
        assert len(set(frames)) == len(frames)
    assert len(details["alternatives"]["type"]) >= 3


@pytest.mark.slow
def test_a_scored_frame_can_be_seen(server, job):
    frame = chosen(server, job[0])["attributes"]["type"]["alternatives"][0]["frame"]
    shown = picture(get(server, f"/jobs/{job[0]}/frames/{frame}.jpg").content)
    true = video.grab(SAMPLE, {frame})[frame]
    assert np.abs(shown.astype(int) - true).mean() < 6
    assert server.client.get(f"/jobs/{job[0]}/frames/99999.jpg").status_code == 404


def test_a_swap_changes_selection_photo_and_zip(server, job):
    before = chosen(server, job[0])
    details = get(server, f"/jobs/{job[0]}/details").json()
    other = details["alternatives"]["type"][1]
    answer = server.client.put(f"/jobs/{job[0]}/photos/type", json={"frame": other["frame"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["revision"] == 1
    after = chosen(server, job[0])
    jsonschema.validate(after, selection.schema())
    new = after["attributes"]["type"]
    assert (new["frame"], new["value"]) == (other["frame"], before["attributes"]["type"]["value"])
    assert new["certainty"] == pytest.approx(other["certainty"])
    assert {k: v for k, v in after["attributes"].items() if k != "type"} == {
        k: v for k, v in before["attributes"].items() if k != "type"
    }
    # What carjax itself had chosen stays to be had.
    others = get(server, f"/jobs/{job[0]}/details").json()["alternatives"]
    own = before["attributes"]["type"]
    fields = ("frame", "value", "certainty")
    assert [others["type"][0].get(f) for f in fields] == [own[f] for f in fields]
    marked = [(p, o["frame"]) for p, found in others.items() for o in found if "first" in o]
    assert marked == [("type", own["frame"])]
    assert [o["frame"] for o in others["type"]].count(own["frame"]) == 1
    true = video.grab(SAMPLE, {other["frame"]})[other["frame"]]
    with archive(server, job[0]) as held:
        assert (
            json.loads(held.read("selection.json"))["attributes"]["type"]["frame"] == new["frame"]
        )
        assert np.abs(picture(held.read("09_type.jpg")).astype(int) - true).mean() < 4


@pytest.mark.slow
def test_a_view_only_takes_a_frame_that_shows_it(server, job):
    views = chosen(server, job[0])["orientation"]["views"]
    path = f"/jobs/{job[0]}/photos/view_front"
    answer = server.client.put(path, json={"frame": views["rear"]["frame"]})
    assert answer.status_code == 422
    assert "shows the rear rather than the front" in answer.json()["detail"]
    assert server.client.put(path, json={"frame": 10**6}).status_code == 422
    assert server.client.put(f"/jobs/{job[0]}/photos/wheels", json={"frame": 0}).status_code == 422


def test_an_edit_of_photos_that_have_changed_since_is_refused(server, job):
    before = get(server, f"/jobs/{job[0]}").json()["revision"]
    edit = {"crop": "4:3", "revision": before - 1}
    answer = server.client.put(f"/jobs/{job[0]}/crop", json=edit)
    assert answer.status_code == 409
    assert "have changed meanwhile" in answer.json()["detail"]
    assert get(server, f"/jobs/{job[0]}/details").json()["crop"] == "none"
    assert get(server, f"/jobs/{job[0]}").json()["revision"] == before


def test_a_blurred_region_is_so_in_every_export_and_can_be_taken_back(server, job):
    seats = chosen(server, job[0])["attributes"]["seats"]
    clear = picture(get(server, f"/jobs/{job[0]}/{seats['photo']}").content).astype(int)
    path = f"/jobs/{job[0]}/frames/{seats['frame']}/blur"
    box = (0.25, 0.5, 0.5, 0.25)
    assert server.client.put(path, json={"boxes": [box]}).status_code == 200
    rows, columns = slice(182, 268), slice(162, 478)
    with archive(server, job[0]) as held:
        exported = picture(held.read("12_seats.jpg")).astype(int)
    small = picture(get(server, f"/jobs/{job[0]}/photos/seats.jpg?size=small").content).astype(int)
    for image in (exported, small):
        inside = np.abs(image - clear)[rows, columns]
        assert inside.mean() > 5
        # At most a few flat cells are left: no writing survives.
        detail = cv2.Laplacian(image[rows, columns].astype(np.float32), cv2.CV_32F)
        assert np.percentile(np.abs(detail), 90) < 8
        assert np.abs(image - clear)[:170].mean() < 2
    assert server.client.put(path, json={"boxes": []}).status_code == 200
    again = picture(get(server, f"/jobs/{job[0]}/{seats['photo']}").content).astype(int)
    assert np.array_equal(again, clear)
    answer = server.client.put(path, json={"boxes": [[2, 2, 0.1, 0.1]]})
    assert answer.status_code == 422


def test_photos_can_be_cut_to_the_car(server, job):
    assert server.client.put(f"/jobs/{job[0]}/crop", json={"crop": "4:3"}).status_code == 200
    shapes = [
        picture(archive(server, job[0]).read(f"0{i}_{VIEWS[i - 1]}.jpg")).shape for i in (1, 3)
    ]
    assert any(w / h == pytest.approx(4 / 3, abs=0.02) for h, w, _ in shapes)
    assert server.client.put(f"/jobs/{job[0]}/crop", json={"crop": "none"}).status_code == 200
    assert picture(archive(server, job[0]).read("03_left.jpg")).shape == (360, 640, 3)


def test_a_change_that_could_not_be_written_changes_nothing(server, job, tmp_path, monkeypatch):
    folder = tmp_path / "job"
    shutil.copytree(next(p for p in server.job_folders() if p.name == job[0]), folder)
    views = chosen(server, job[0])["orientation"]["views"]
    other = get(server, f"/jobs/{job[0]}/details").json()["alternatives"]["view_left"][0]["frame"]

    def contents():
        held = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        held.pop(pathlib.Path("original", f"{other}.jpg"), None)  # shown by nothing
        return held

    def full(table):
        raise OSError(errno.ENOSPC, "no space left on device")

    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(results, "series", full)  # the last thing that is computed
        with pytest.raises(OSError, match="no space"):
            results.crop(folder, "4:3")
        assert contents() == before
        with pytest.raises(OSError, match="no space"):
            results.swap_photo(folder, "view_left", other)
        assert contents() == before
    results.redact(folder, views["rear"]["frame"], [(0.25, 0.5, 0.5, 0.25)])
    content = json.loads((folder / "out" / "selection.json").read_text())
    assert content["orientation"]["views"] == views
    assert cv2.imread(str(folder / "small" / "view_front.jpg")).shape == (360, 640, 3)


@pytest.mark.slow
def test_two_people_at_once_get_their_own(server):
    wanted = {"Ann.mp4": "type", "Bo.mp4": "seats"}
    results = {}

    def visit(name):
        with own_client(server.address) as client:
            with SAMPLE.open("rb") as file:
                form = {"attributes": wanted[name]}
                identity = client.post("/jobs", files={"video": (name, file)}, data=form).json()[
                    "id"
                ]
            while client.get(f"/jobs/{identity}").json()["state"] not in ("done", "failed"):
                with client.stream("GET", f"/jobs/{identity}/events") as stream:
                    stream.read()
            results[name] = identity, client.get(f"/jobs/{identity}/selection.json").json()

    threads = [threading.Thread(target=visit, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({identity for identity, _ in results.values()}) == 2
    for name, (_, content) in results.items():
        assert content["video"]["path"] == name
        assert list(content["attributes"]) == [wanted[name]]
        assert "orientation" not in content


def test_a_deleted_job_is_gone_from_disk(server):
    identity = server.submit()
    folder = next(p for p in server.job_folders() if p.name == identity)
    assert server.client.delete(f"/jobs/{identity}").status_code == 204
    assert server.client.get(f"/jobs/{identity}").status_code == 404
    assert server.client.get(f"/jobs/{identity}/events").status_code == 404
    assert not folder.exists()


def test_no_answer_names_a_folder_of_the_server(server, job):
    identity, statuses = job
    texts = [json.dumps(statuses)]
    for path in (
        f"/jobs/{identity}",
        f"/jobs/{identity}/selection.json",
        f"/jobs/{identity}/details",
    ):
        texts.append(get(server, path).text)
    with archive(server, identity) as held:
        texts += [held.read(name).decode("latin-1") for name in held.namelist()]
    texts.append(server.post(b"no video at all", "../../a.mp4").text)
    for text in texts:
        assert str(server.folder) not in text
        assert "carjax-serve-" not in text
        assert "/video/" not in text


def test_the_page_and_the_api_load_nothing_from_elsewhere(server):
    page = get(server, "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    docs = get(server, "/docs")
    for html in (page.text, docs.text):
        assert "http://" not in html.replace("http://www.w3.org", "")
        assert "https://" not in html
    for path in ("page.css", "page.js", "components.js", "style.css", "viewer.js", "api.js"):
        text = get(server, f"/static/{path}").text
        assert "https://" not in text
    assert get(server, "/swagger/swagger-ui-bundle.js").content
    assert server.client.get("/static/../app.py").status_code == 404
    paths = get(server, "/openapi.json").json()["paths"]
    assert {"/jobs", "/jobs/{id}", "/jobs/{id}/events", "/jobs/{id}/zip"} <= set(paths)


def test_another_site_cannot_send_a_visitor_here(server):
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert server.client.post("/jobs", headers=headers).status_code == 403
    assert server.client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("{own}", 404),
        ("http://evil.example", 403),
        ("http://localhost:1", 403),
        ("http://127.0.0.1", 403),
        ("null", 403),
    ],
)
def test_a_change_must_come_from_the_own_page(server, origin, status):
    headers = {"Origin": origin.format(own=server.address)}
    answer = server.client.delete("/jobs/none", headers=headers)
    assert answer.status_code == status, answer.text
    assert server.client.get("/about", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9999", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("192.168.0.2", 403),
        ("[::1", 403),
    ],
)
def test_a_local_server_answers_to_its_own_names_alone(server, host, status):
    answer = server.client.get("/about", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert "--host opens it to others" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attributes": "type,wheels"}, "wheels"),
        ({"views": "5"}, "8 or 4"),
        ({"known": "brand"}, "attribute:value"),
        ({"known": "wheels:4"}, "wheels"),
        (
            {"known": "brand:BMW", "attributes": "type"},
            "brand is not among the chosen attributes: type",
        ),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_refused(server, job, fields, says):
    answer = server.post(SAMPLE.read_bytes(), **fields)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("photos/type", {"frame": -1}, "frame: Input should be greater than or equal to 0"),
        ("photos/type", {}, "frame: Field required"),
        ("crop", {"crop": "5:3"}, "crop: Input should be"),
        ("frames/{frame}/blur", {"boxes": [[1.5, 0.7, 0.1, 0.1]]}, "lies outside of the frame"),
    ],
)
def test_what_is_refused_is_told_in_one_line(server, job, path, body, says):
    frame = chosen(server, job[0])["attributes"]["type"]["frame"]
    answer = server.client.put(f"/jobs/{job[0]}/{path.format(frame=frame)}", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert "1×1" not in answer.json()["detail"]


def test_whoever_asks_for_the_head_alone_gets_it(server, job):
    paths = ("selection.json", "details", "photos/type.jpg", "photos/type.jpg?size=small", "zip")
    results = [f"/jobs/{job[0]}/{path}" for path in paths]
    for path in ("/", "/about", "/docs", "/static/page.js", *results):
        answer = server.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        whole = get(server, path)
        assert int(answer.headers["content-length"]) == len(whole.content)
        assert answer.headers["content-type"] == whole.headers["content-type"]
    assert server.client.head(f"/jobs/{job[0]}/photos/none.jpg").status_code == 404


def test_a_download_that_broke_off_goes_on(server, job):
    path = f"/jobs/{job[0]}/zip"
    folder = next(p for p in server.job_folders() if p.name == job[0])
    with server.client.stream("GET", path) as whole:  # under a name of its own, elsewhere
        assert not list(folder.rglob(".*.part"))
        whole.read()
    rest = server.client.get(path, headers={"Range": f"bytes={len(whole.content) - 9}-"})
    assert (rest.status_code, rest.content) == (206, whole.content[-9:])
    assert rest.headers["etag"] == whole.headers["etag"]
    # The names under which it was sent go, a moment after its last byte.
    assert list(server.folder.rglob("photos.zip"))
    for _ in range(500):
        if not list(server.folder.rglob(".*.part")):
            return
        get(server, "/about")
    pytest.fail("a name under which a file was sent is still there")


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://cars.example", "cars.example:443", True),
        ("http://cars.example:80", "Cars.Example", True),
        ("HTTPS://Cars.Example:443", "cars.example", True),
        ("https://cars.example", "cars.example:80", False),
        ("http://cars.example", "127.0.0.1:8000", False),
    ],
)
def test_a_site_s_usual_port_may_be_left_out(origin, host, same):
    assert guard.same_site(origin, host) is same


def test_a_browser_that_has_a_file_is_not_sent_it_again(server):
    first = get(server, "/static/page.js")
    tag = first.headers["etag"]
    again = server.client.get("/static/page.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == first.headers["cache-control"] == "no-cache"
    other = server.client.get("/static/page.js", headers={"If-None-Match": '"another"'})
    assert other.content == first.content


def test_the_server_connected_to_nothing(server, job):
    assert server.connections == []


def test_help_and_wrong_usage(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["serve", "--help"])
    text = capsys.readouterr().out
    assert "--host=127.0.0.1" in text
    assert len(text.splitlines()) < 30
    assert command.main(["serve", "video.mp4"]) == 2
    assert command.main(["serve", "--seconds=0"]) == 2
    assert command.main(["serve", "--memory_gb=inf"]) == 2
    assert command.main(["serve", "--port=70000"]) == 2
    assert capsys.readouterr().err.count("\n") == 4


def test_a_port_that_is_taken_is_one_line(server, capsys):
    port = server.address.rpartition(":")[2]
    assert command.main(["serve", f"--port={port}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "give another --port" in error


def test_a_name_that_is_no_host_is_one_line():
    with (
        pytest.raises(CarjaxError, match="give another --host"),
        serve._listening("no host", 0),
    ):
        pass


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with serving(tmp_path, f"--model={tmp_path / 'model.safetensors'}") as server:
        assert server.process.wait(60) == 1


@pytest.mark.skipif(
    signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="SIGHUP is ignored here (nohup)"
)
def test_no_upload_stays_on_disk_after_a_hangup_or_a_kill(tmp_path):
    killed, alive = tmp_path / "carjax-serve-killed", tmp_path / "carjax-serve-alive"
    for folder in (killed, alive):
        (folder / "job" / "video").mkdir(parents=True)
        (folder / "job" / "video" / "a.mp4").touch()
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with serving(tmp_path) as server:
        assert get(server, "/about")
        own = {*tmp_path.glob("carjax-serve-*")} - {alive}
        assert len(own) == 1
        assert not killed.exists()
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(30) == 0
    assert [*tmp_path.glob("carjax-serve-*")] == [alive]
    assert (alive / "job" / "video" / "a.mp4").exists()
    os.close(lock)


def test_the_wheel_holds_the_page():
    held = (ROOT / "pyproject.toml").read_text()
    assert '"web/static/*"' in held


def test_no_log_names_a_job_and_the_server_takes_no_more_connections_than_it_can(monkeypatch):
    """A job's id is its password."""
    configs = []

    class Server:
        """Listens to nobody."""

        def __init__(self, config):
            configs.append(config)

        def run(self, sockets):
            pass

    monkeypatch.setattr("uvicorn.Server", Server)
    assert command.main(["serve", "--port=0"]) == 0
    (config,) = configs
    assert not config.access_log
    assert config.limit_concurrency == 200
