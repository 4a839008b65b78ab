"""Blind pairs of frames: the sheets that viewers see, the key that they do not, and the verdict."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from carjax import files, pictures
from carjax.datasets import csv_table
from carjax.errors import CarjaxError
from carjax.experiment import candidates
from carjax.experiment.candidates import (
    ALBUM,
    CONSENSUS,
    MIDDLE,
    RANDOM,
    SHARPEST,
    VIDEO,
    Candidates,
)

# Share of an attribute's pairs against each rival: the bar is set against a random frame.
RIVALS = {RANDOM: 0.52, SHARPEST: 0.24, MIDDLE: 0.24}
CHOICES = ("A", "B", "tie")
# A sheet: rows of two pictures, each letterboxed to the same size, below a line of text.
WIDTH, HEIGHT, TEXT, GAP, ROWS = 448, 336, 34, 12, 4


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two frames of one album or video, in the order in which they are shown.

    Attributes:
        pair: its number, from 1.
        attribute: which the viewer judges.
        rival: who chose the other frame.
        kind: album or video.
        protocol: what the heads had not seen: known models, unseen models, or video.
        source: the car model, or the video.
        a_file: the photo, or the video, that the left picture is from.
        a_frame: its frame number in the video, or position in the album.
        b_file: as `a_file`, on the right.
        b_frame: as `a_frame`.
        chosen: 'A' or 'B', the side of the frame that carjax chose.
        chosen_certainty: 1 − H/log K of that frame.
        rival_certainty: of the other.
    """

    pair: int
    attribute: str
    rival: str
    kind: str
    protocol: str
    source: str
    a_file: str
    a_frame: int
    b_file: str
    b_frame: int
    chosen: str
    chosen_certainty: float
    rival_certainty: float


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """A pair before it has a number: who, where, and the positions of the two frames."""

    among: Candidates
    protocol: str
    rival: str
    chosen: int
    other: int


def draw(
    entries: Sequence[tuple[str, Candidates]], count: int, seed: int = 0
) -> tuple[list[Pair], list[tuple[np.ndarray, np.ndarray]], dict[str, int]]:
    """Draws pairs: what carjax chose and what a rival chose, from one album or video each.

    Every video gives one pair per attribute and rival; albums of different car models, in random
    order, give the rest. Where both choose the same frame there is nothing to show.

    Args:
        entries: protocol, and album or video; of several protocols, each gives an equal share.
        count: pairs in all, shared equally by the attributes.
        seed: of the draws, the order of the pairs and the sides.

    Returns:
        (the pairs, their pictures left and right, uint8 RGB, rival → number of times that it chose
        the very frame that carjax chose while the pairs were drawn).

    Raises:
        CarjaxError: there are not enough albums and videos.
    """
    rng = np.random.default_rng(seed)
    same = dict.fromkeys(RIVALS, 0)
    names = list(dict.fromkeys(own.attribute.name for _, own in entries))
    if not names:
        raise CarjaxError("no album and no video to draw pairs from")
    drawn: list[_Drawn] = []
    for name in names:
        share = count // len(names) + (names.index(name) < count % len(names))
        drawn += _draw_attribute(
            [entry for entry in entries if entry[1].attribute.name == name], share, rng, same
        )
    order = rng.permutation(len(drawn))
    numbered = [
        _number(i, drawn[j], bool(rng.integers(2))) for i, j in enumerate(order.tolist(), start=1)
    ]
    return [pair for pair, _ in numbered], [pictures for _, pictures in numbered], same


def _draw_attribute(
    entries: Sequence[tuple[str, Candidates]],
    count: int,
    rng: np.random.Generator,
    same: dict[str, int],
) -> list[_Drawn]:
    """Draws an attribute's pairs, videos first, then albums of car models not used yet."""
    quota = {rival: round(count * share) for rival, share in RIVALS.items()}
    quota[RANDOM] += count - sum(quota.values())
    shuffled = [entries[i] for i in rng.permutation(len(entries))]
    protocols = sorted({protocol for protocol, own in entries if own.kind == ALBUM})
    found: list[_Drawn] = []

    def attempt(protocol: str, own: Candidates, rival: str) -> bool:
        picked = candidates.picks(own)
        chosen = picked[CONSENSUS]
        other = int(rng.integers(len(own.table))) if rival == RANDOM else picked[rival]
        if chosen is None or other is None:
            return False
        if chosen == other:
            same[rival] += 1
            return False
        found.append(_Drawn(own, protocol, rival, chosen, other))
        return True

    for rival in RIVALS:
        for protocol, own in shuffled:
            if own.kind == VIDEO and quota[rival]:
                quota[rival] -= attempt(protocol, own, rival)
    used: set[tuple[str, str]] = set()
    queues = {p: [own for q, own in shuffled if q == p and own.kind == ALBUM] for p in protocols}
    turn = 0
    while any(quota.values()):
        if not any(queues.values()):
            raise CarjaxError(f"too few albums for {count} pairs of one attribute: ask for fewer")
        protocol = protocols[turn % len(protocols)]
        turn += 1
        rival = max(quota, key=lambda r: quota[r])
        while queues[protocol]:
            own = queues[protocol].pop()
            if (protocol, own.source) not in used and attempt(protocol, own, rival):
                used.add((protocol, own.source))
                quota[rival] -= 1
                break
    return found


def _number(
    number: int, drawn: _Drawn, chosen_left: bool
) -> tuple[Pair, tuple[np.ndarray, np.ndarray]]:
    own = drawn.among
    sides = (drawn.chosen, drawn.other) if chosen_left else (drawn.other, drawn.chosen)
    left, right = sides
    pair = Pair(
        pair=number,
        attribute=own.attribute.name,
        rival=drawn.rival,
        kind=own.kind,
        protocol=drawn.protocol,
        source=own.source,
        a_file=own.files[left],
        a_frame=int(own.table.frame[left]),
        b_file=own.files[right],
        b_frame=int(own.table.frame[right]),
        chosen="A" if chosen_left else "B",
        chosen_certainty=round(float(own.certainty[drawn.chosen]), 4),
        rival_certainty=round(float(own.certainty[drawn.other]), 4),
    )
    return pair, (letterbox(own.read(left)), letterbox(own.read(right)))


def letterbox(image: np.ndarray) -> np.ndarray:
    """Fits a picture into a grey one of `WIDTH` by `HEIGHT`, its aspect unchanged.

    Example:
        >>> letterbox(np.zeros((10, 40, 3), np.uint8))[:, 0, 0].tolist().count(0)
        112
    """
    scale = min(WIDTH / image.shape[1], HEIGHT / image.shape[0])
    rows, columns = (max(1, round(n * scale)) for n in image.shape[:2])
    canvas = np.full((HEIGHT, WIDTH, 3), 96, np.uint8)
    left, top = (WIDTH - columns) // 2, (HEIGHT - rows) // 2
    fitted = pictures.resized(image, rows, columns, cubic=True)
    canvas[top : top + rows, left : left + columns] = fitted
    return canvas


def question(attribute: str) -> str:
    """What a viewer is asked.

    Example:
        >>> question("doors")
        'Which shows its doors better?'
    """
    return f"Which shows its {attribute} better?"


def write_sheets(
    out: str | os.PathLike[str],
    pairs: Sequence[Pair],
    pictures: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[pathlib.Path]:
    """Writes `sheet_NN.png`, each with a few pairs below their number and question.

    Other sheets in the folder, of an earlier draw, are removed.
    """
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for start in range(0, len(pairs), ROWS):
        rows = [
            _row(pair, *sides)
            for pair, sides in zip(
                pairs[start : start + ROWS], pictures[start : start + ROWS], strict=True
            )
        ]
        path = folder / f"sheet_{start // ROWS + 1:02d}.png"
        encoded, data = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
        if not encoded:
            raise CarjaxError(f"{path}: this sheet cannot be encoded as PNG")
        files.write(path, data.tobytes())
        written.append(path)
    for stale in {*folder.glob("sheet_*.png")} - {*written}:
        stale.unlink()
    return written


def _row(pair: Pair, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    head = np.full((TEXT, 2 * WIDTH + GAP, 3), 255, np.uint8)
    line = f"Pair {pair.pair}   {question(pair.attribute)}   left: A   right: B"
    cv2.putText(head, line, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2, cv2.LINE_AA)
    return np.concatenate([head, np.concatenate([left, gap, right], axis=1)])


def write_key(path: str | os.PathLike[str], pairs: Sequence[Pair]) -> None:
    """Writes what the sheets hide, a row per pair."""
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, [field.name for field in dataclasses.fields(Pair)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(pair) for pair in pairs)


def read_key(path: str | os.PathLike[str]) -> list[Pair]:
    """Reads a key.

    Raises:
        CarjaxError: no such file, a missing column, or a value of another kind.
    """
    kinds = {"int": int, "float": float, "str": str}
    columns = {field.name: kinds[str(field.type)] for field in dataclasses.fields(Pair)}
    try:
        return [
            Pair(**{name: kind(row[name]) for name, kind in columns.items()})
            for row in csv_table.read(path, list(columns)).rows
        ]
    except ValueError as error:
        raise CarjaxError(f"{path}: not a key of pairs ({error})") from None


def read_judgements(
    path: str | os.PathLike[str], pairs: Sequence[Pair]
) -> dict[str, dict[int, str]]:
    """Reads judgements: columns `pair,viewer,choice`.

    Returns:
        Viewer → {pair: 'A', 'B' or 'tie'}.

    Raises:
        CarjaxError: no such file, a missing column, a pair that the key lacks or that a viewer
            judged twice, or a choice that is none of the three.
    """
    known = {pair.pair for pair in pairs}
    found: dict[str, dict[int, str]] = {}
    table = csv_table.read(path, ["pair", "viewer", "choice"])
    for i, row in enumerate(table.rows):
        number, choice = row["pair"], row["choice"]
        if not number.isdigit() or int(number) not in known:
            raise table.fault(i, f"the key has no pair {number!r}")
        if choice not in CHOICES:
            raise table.fault(i, f"{choice!r} is none of {', '.join(CHOICES)}")
        own = found.setdefault(row["viewer"], {})
        if int(number) in own:
            raise table.fault(i, f"a second judgement of pair {number}")
        own[int(number)] = choice
    return found
