"""Scoring a video: decoded ahead or not, by seeking or from its start, the table is the same."""

import dataclasses
import pathlib
import types

import av
import numpy as np
import pytest
import walk

from carjax import scan, scoring, video
from carjax.attributes import CAR
from carjax.errors import UsageError
from carjax.stopwatch import Stopwatch
from carjax.video import reader
from carjax.web import tasks

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"


@pytest.fixture(scope="module")
def scored(tiny_model):
    return scan.score_video(tiny_model, SAMPLE)[0]


def same(a, b):
    np.testing.assert_array_equal(a.frame, b.frame)
    np.testing.assert_array_equal(a.time_s, b.time_s)
    np.testing.assert_array_equal(a.box, b.box)
    np.testing.assert_array_equal(a.azimuth_deg, b.azimuth_deg)
    for name, probs in a.probs.items():
        np.testing.assert_array_equal(probs, b.probs[name])


@pytest.mark.slow
def test_decoding_may_begin_before_there_is_a_model(tiny_model, scored):
    ahead = scan.Ahead(SAMPLE, "auto")
    table, source = scan.score_video(tiny_model, SAMPLE, ahead=ahead)
    assert source is ahead.source
    same(table, scored)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["first frames", "later frames"])
def test_an_index_that_is_wrong_is_not_used_again(tiny_model, scored, when, monkeypatch):
    """The video is decoded from its start instead, once: the first frame of each slot."""
    read, calls = video.Reader.read, []

    def failing(self, indices):
        calls.append(self.seeks)
        if self.seeks and len(calls) > (when == "later frames"):
            raise video.UnprovenIndexError("wrong")
        yield from read(self, indices)

    monkeypatch.setattr(video.Reader, "read", failing)
    table, source = scan.score_video(tiny_model, SAMPLE)
    assert not source.seeks
    assert calls
    assert all(calls), "in one pass"
    monkeypatch.undo()
    known = np.isin(table.frame, scored.frame)
    assert known.sum() > 10
    order = np.searchsorted(scored.frame, table.frame[known])
    np.testing.assert_array_equal(table.time_s[known], scored.time_s[order])
    np.testing.assert_allclose(table.box[known], scored.box[order], atol=1e-5)


@pytest.mark.slow
def test_a_frame_that_is_damaged_is_asked_for_once(tiny_model, monkeypatch):
    read, asked = reader._Stretches.read, []

    def damaged(self, row, wanted, *rest):
        asked.extend(wanted)
        for index, frame in read(self, row, wanted, *rest):
            yield index, frame if index % 3 else None

    monkeypatch.setattr(reader._Stretches, "read", damaged)
    table, _ = scan.score_video(tiny_model, SAMPLE)
    assert len(asked) == len(set(asked))
    assert len(table) < len(asked)


class Scored:
    """What `_Scan` is to `_refine`, with scores made up; the last frames asked for wait."""

    def __init__(self, batch_size, every, first):
        self.batch_size, self.watch = batch_size, Stopwatch()
        self.every, self.known, self.rounds = every, first, [first]

    def table(self):
        return self.every.take(sorted(self.known))

    def start(self, frames):
        self.finish()
        self.rounds.append([frame.index for frame in frames])

    def finish(self):
        self.known = sorted({*self.known, *self.rounds[-1]})


def test_the_number_of_devices_does_not_change_which_frames_are_scored():
    rounds = []
    for devices in (1, 2, 7):
        batch_size = -(-scan.BATCH_SIZE // devices) * devices
        with video.Reader(SAMPLE, max_side=16) as reader:
            first = [frame.index for frame in reader.sample(1.6)]
            scored = Scored(batch_size, walk.table(180, 12.0), first)
            scan._refine(scored, reader, None, 8)
            rounds.append(scored.rounds)
    assert len(rounds[0]) > 3
    assert rounds[0] == rounds[1] == rounds[2]


def test_a_video_that_cannot_be_jumped_in_is_decoded_once(tmp_path, monkeypatch):
    path = tmp_path / "walk.ts"
    with av.open(str(SAMPLE)) as whole, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    scored = Scored(scan.BATCH_SIZE, walk.table(180, 12.0), [])
    monkeypatch.setattr(scan, "_Scan", lambda *words: scored)
    passes, pictures = [], video.Decoder.pictures
    monkeypatch.setattr(
        video.Decoder, "pictures", lambda self: passes.append(self) or pictures(self)
    )
    model = types.SimpleNamespace(spec=types.SimpleNamespace(schema=CAR))
    table, source = scan.score_video(model, path)
    assert not source.seeks
    assert len(passes) == 1
    assert len(table) == 15 * video.AUTO_FPS
    assert source.info.frames == 180


def test_what_cannot_be_asked_for_is_refused_before_anything_is_decoded(tiny_model):
    for wrong in ({"attributes": ("wheels",)}, {"attributes": "doors"}, {"views": 5}):
        with pytest.raises(UsageError):
            scan.score_video(tiny_model, "no such file", **wrong)


def test_a_second_video_finds_the_programs_of_the_first(tiny_model):
    assert scoring.kept_scorer(tiny_model, 12) is scoring.kept_scorer(tiny_model, 12)
    for _ in range(2):
        _, source = scan.score_video(tiny_model, SAMPLE, fps=0.2)
        source.close()
    assert len(scoring.kept_scorer(tiny_model, scan.BATCH_SIZE)._programs) == 1


def test_every_frame_or_so_many_a_second(tiny_model):
    table, source = scan.score_video(tiny_model, SAMPLE, fps=2.0)
    assert isinstance(source, video.Decoder)
    assert table.frame.tolist() == [f.index for f in video.frames(SAMPLE, fps=2.0)]


def test_the_first_video_of_the_page_finds_the_program_that_was_compiled_ahead(
    tiny_model, monkeypatch
):
    one = dataclasses.replace(tiny_model)  # no other test has scored with it
    monkeypatch.setattr(tasks, "_model", lambda name, weights: one)
    tasks.warm(lambda message: None, None, None, "portrait")
    scorer = scoring.kept_scorer(one, scan.BATCH_SIZE)
    assert list(scorer._programs) == [(scorer.batch_size, 640, 360, 3)]


def test_as_many_frames_are_expected_as_there_are_and_as_are_asked_for():
    def info(frames, duration_s):
        return video.VideoInfo(
            path="x", frames=frames, exact_frames=True, duration_s=duration_s, width=4, height=3,
            rotation=0, average_rate=frames / duration_s,
        )  # fmt: skip

    assert scan.expected_frames(info(300, 10.0), 2.0) == 20
    assert scan.expected_frames(info(300, 10.0), "all") == 300
    assert scan.expected_frames(info(10, 60.0), 2.0) == 10
    assert scan.expected_frames(info(10, 60.0), "auto") == 10
    assert scan.expected_frames(info(1800, 60.0), "auto") == 132
    assert scan.expected_frames(info(1800, 60.0), "auto", seeks=False) == 480
    assert scan.expected_frames(info(1, 0.04), 2.0) == 1
