"""Everything that the experiment scores: held-out photos, their albums, and the videos."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from carjax import model as models
from carjax.errors import CarjaxError
from carjax.experiment import candidates, predictions
from carjax.experiment.candidates import Candidates
from carjax.experiment.predictions import Facts, Predictions


@dataclasses.dataclass(frozen=True)
class Held:
    """Everything that was held out, with its predictions.

    Attributes:
        protocols: 'known models', 'unseen models' → attribute → out-of-fold predictions.
        excluded: protocol → attribute → photos left out because no other fold has their class.
        facts: of all photos.
        albums: protocol → albums of all attributes.
        videos: scored by one model, whose heads saw none of them.
        model: name and version of that model; None without videos.
    """

    protocols: Mapping[str, Mapping[str, Predictions]]
    excluded: Mapping[str, Mapping[str, int]]
    facts: Facts
    albums: Mapping[str, Sequence[Candidates]]
    videos: Sequence[Candidates]
    model: Mapping[str, Any] | None


def read(
    runs: Sequence[str | os.PathLike[str]],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    backbone_weights: str | os.PathLike[str] | None = None,
    videos: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Held:
    """Reads the runs, the facts of their photos, and scores the videos.

    Args:
        runs: folders of `benchmarks/crossval.py`, one per protocol.
        data_dir: the folder of data sets, see `photos.data_root`.
        model: bundle that scores the videos; None is the one that ships.
        backbone_weights: weights of its backbone, where the package does not ship them.
        videos: whether to score them.
        on_progress: called with the number of photos measured so far, and of all.

    Raises:
        CarjaxError: an input is missing or broken, or two folders are of one protocol.
    """
    read_runs = [predictions.read_runs(folder) for folder in runs]
    names = sorted({n for run in read_runs for own in run.values() for n in own.names.tolist()})
    facts = predictions.read_facts(data_dir, names, lambda done: on_progress(done, len(names)))
    protocols: dict[str, dict[str, Predictions]] = {}
    excluded: dict[str, dict[str, int]] = {}
    for folder, run in zip(runs, read_runs, strict=True):
        protocol = predictions.protocol_of(next(iter(run.values())), facts)
        if protocol in protocols:
            raise CarjaxError(f"{folder}: a second folder of runs that hold out {protocol}")
        kept = {name: predictions.learnable(own) for name, own in run.items()}
        protocols[protocol] = {name: own.take(kept[name]) for name, own in run.items()}
        excluded[protocol] = {name: int((~mask).sum()) for name, mask in kept.items()}
    albums = {
        protocol: [a for own in run.values() for a in candidates.albums(own, facts, data_dir)]
        for protocol, run in protocols.items()
    }
    scored: list[Candidates] = []
    card = None
    if videos:
        bundle = models.load(model, backbone_weights=backbone_weights)
        scored = candidates.videos(bundle, data_dir)
        card = bundle.origin
    return Held(protocols, excluded, facts, albums, scored, card)


def all_candidates(held: Held) -> list[tuple[str, Candidates]]:
    """Returns every album and video, each with its protocol."""
    found = [(protocol, own) for protocol, albums in held.albums.items() for own in albums]
    return [*found, *((candidates.VIDEO, own) for own in held.videos)]
