"""Nested cross-validation on cars that a head knows, on models it never saw, on unknown brands.

    python benchmarks/nested.py --data_dir="$CARJAX_DATA" --workdir=out/nested \\
        --calibration=data/car_heads.calibration.json

Each outer fold holds out a fifth of the car models, the makes with a single model among them, and
a fifth of the photos of all other models. Within the rest, two inner folds each hold out the same
way a tenth of either: few, as their heads are to be nearly as well trained as those of the outer
fold. On both together the calibration and the threshold for unknown brands are fitted, and then
applied as they are to the outer fold. So every figure comes from photos that neither the heads nor
their calibration saw:

* known: photos of models that were trained on;
* unseen: photos of models that were not; for brand, their make has another model in training;
* unknown: photos of makes that were not trained on at all (brand only);
* elsewhere: photos of another source, `phone_photos`, of families of models that were not trained
  on. The rest of that source is trained on as well, if the config names it, but for the cars of
  models that are held out. The other three are of Stanford Cars.

Each of attributes × outer folds × {two inner, outer} is one `carjax train` run; finished runs are
reused.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import crossval
import feature_scores
import jax.numpy as jnp
import machine
import numpy as np
from absl import flags

from carjax import calibration, certainty, files, runtime, selection
from carjax.attributes import CAR, VIEWS, Categorical, find
from carjax.cli import common
from carjax.datasets.folds import fold_of, number_of
from carjax.errors import UsageError
from carjax.evaluation import metrics

FOLDS, INNER_FOLDS = 5, 10
DATA_SET, LENT = "stanford_cars", "phone_photos"
SYNOPSIS = "usage: python benchmarks/nested.py --workdir=DIR [--attributes=…]"
HERE = pathlib.Path(__file__).parent
LENT_TABLE = HERE.parent / "data" / "label_tables" / f"{LENT}.csv"
# What a photo is in a split; the first is trained on.
TRAIN, KNOWN, UNSEEN, UNKNOWN, ELSEWHERE, LEFT_OUT = range(6)
PARTS = {"known": KNOWN, "unseen": UNSEEN, "unknown": UNKNOWN, "elsewhere": ELSEWHERE}
MEASURED = ("known", "unseen")


class Cars(NamedTuple):
    """The photos' names and what they show, N each; the azimuth in degrees (NaN: unknown).

    Of the photos of `LENT`, `same_as` names the models of `DATA_SET` that are the same car.
    """

    data_set: np.ndarray
    file: np.ndarray
    make: np.ndarray
    model: np.ndarray
    azimuth: np.ndarray
    same_as: np.ndarray


def read_cars(root: pathlib.Path) -> Cars:
    """Reads the label tables."""
    tables = {DATA_SET: root / DATA_SET / "labels.csv", LENT: LENT_TABLE}
    rows: list[tuple[str, str, str, str, float, str]] = []
    for name, path in tables.items():
        with path.open(newline="") as f:
            rows += [
                (name, row["file"], row["make"], row["class_name"],
                 float(row.get("azimuth_deg") or "nan"), row.get("same_as", ""))
                for row in csv.DictReader(f)
            ]  # fmt: skip
    return Cars(*(np.array(column) for column in zip(*rows, strict=True)))


def view_weights(azimuth: np.ndarray) -> np.ndarray:
    """What each photo counts where all eight views are to count alike, float [N], mean 1.

    The photos are mostly fronts, which heads know best; a walk around a car has as many rears.

    Example:
        >>> view_weights(np.array([0.0, 5.0, 180.0])).tolist()
        [0.75, 0.75, 1.5]
    """
    from carjax.training import tasks

    view = metrics.view_bin(azimuth)
    weights = tasks.balanced_weights(view, np.bincount(view, minlength=len(VIEWS)), 1.0)
    return weights / weights.mean()


def model_folds(cars: Cars, folds: int = FOLDS) -> np.ndarray:
    """Returns each photo's fold by model, int [N]; the models of a make lie in different folds."""
    fold = {}
    for name, make in {*zip(cars.data_set.tolist(), cars.make.tolist(), strict=True)}:
        own = (cars.data_set == name) & (cars.make == make)
        models = sorted(set(cars.model[own]), key=number_of)
        fold |= {(name, model): (number_of(make) + i) % folds for i, model in enumerate(models)}
    keys = zip(cars.data_set.tolist(), cars.model.tolist(), strict=True)
    return np.array([fold[key] for key in keys])


def runs_of(outer: int) -> dict[str, int | None]:
    """Returns the name of each run of an outer fold → the inner fold that it holds out, or None.

    Example:
        >>> runs_of(4)
        {'inner-0': 0, 'inner-5': 5, 'outer': None}
    """
    first = (outer + 1) % FOLDS
    return {f"inner-{i}": i for i in range(first, INNER_FOLDS, FOLDS)} | {"outer": None}


def split(
    cars: Cars, attribute: str, outer: int, inner: int | None, inner_folds: int = FOLDS
) -> np.ndarray:
    """Returns what every photo is in a split, int [N].

    Photos of `LENT` are trained on, but for a fold of its families, which is elsewhere. Of what is
    trained on those are left out that show a model that is held out, or, for brand, a make of
    which all models are.

    Args:
        cars: the photos.
        attribute: for 'brand', models whose make is not trained on are unknown, not unseen.
        outer: the fold, of `FOLDS`, that is measured; left out entirely where …
        inner: … an inner fold is held out instead, …
        inner_folds: … one of this many; a multiple of `FOLDS`, so that it misses the outer one.
    """
    kind = np.full(len(cars.file), TRAIN)
    lent = cars.data_set == LENT

    def hold_out(fold: int, folds: int) -> None:
        free = (kind == TRAIN) & ~lent
        by_photo = np.array([fold_of(f, folds) for f in cars.file])
        kind[free & (by_photo == fold)] = KNOWN
        kind[free & (model_folds(cars, folds) == fold)] = UNSEEN

    hold_out(outer, FOLDS)
    if inner is not None:
        kind[kind != TRAIN] = LEFT_OUT
        hold_out(inner, inner_folds)
    own = (kind == TRAIN) & ~lent
    same = [{name for name in names.split(";") if name} for names in cars.same_as.tolist()]
    apart = lent & (model_folds(cars) == outer)
    # A family with a car of both data sets is known wherever either trains on it.
    of_both = set(cars.model[lent & (cars.same_as != "")])
    foreign = apart & ~np.isin(cars.model, sorted(of_both))
    kind[apart] = LEFT_OUT
    kind[foreign] = ELSEWHERE if inner is None else LEFT_OUT
    held_out = set(cars.model[~lent]) - set(cars.model[own])
    kind[lent & np.array([bool(names & held_out) for names in same])] = LEFT_OUT
    if attribute == "brand":
        trained = np.isin(cars.make, cars.make[own])
        heard = np.isin(cars.make, cars.make[~lent])
        kind[(kind == UNSEEN) & ~trained] = UNKNOWN
        kind[lent & heard & ~trained] = LEFT_OUT
    return kind


def configure(values: Any, attribute: str) -> Any:
    """Returns an attribute's config with `--set` in force."""
    folder = pathlib.Path(values.configs)
    config = crossval.read_config_file(folder / f"{attribute}.py")["get_config"]()
    for given in values.set:
        crossval.override(config, given)
    return config


def write_folds(folder: pathlib.Path, name: str, fold: Mapping[str, int]) -> None:
    """Writes the table of a data set's folds."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["file", "fold"])
        writer.writerows(fold.items())


def train(values: Any, cars: Cars, config: Any, name: str, kind: np.ndarray) -> pathlib.Path:
    """Trains one run on what a split leaves, or reuses it, and returns its folder."""
    from carjax.training import loop

    workdir = pathlib.Path(values.workdir)
    folds = workdir / "splits" / name
    fold = np.select([kind == TRAIN, kind == LEFT_OUT], [0, -1], 1)
    for data_set in config.datasets:
        own = cars.data_set == data_set
        table = zip(cars.file[own].tolist(), fold[own].tolist(), strict=True)
        write_folds(folds, data_set, dict(table))
    config.fold = 1
    config.splits = str(folds)
    result = loop.train_and_evaluate(
        config, workdir / name, values.data_dir, cache_dir=values.cache_dir
    )
    figures = ", ".join(f"{k} {v:.4f}" for k, v in result["held_out"].items())
    print(f"{name}: {figures} ({result['seconds']} s)", flush=True)
    return workdir / name


Columns = dict[str, np.ndarray]


def parts_of(cars: Cars, columns: Columns, kind: np.ndarray) -> dict[str, Columns]:
    """Returns 'known', 'unseen', 'unknown' → their rows of a run's `held_out.npz`.

    Three columns are added: 'model', 'album', a number that up to `ALBUM` photos of one car model
    share, and 'weight', see `view_weights`.
    """
    names = zip(cars.data_set.tolist(), cars.file.tolist(), strict=True)
    position = {"/".join(name): i for i, name in enumerate(names)}
    index = np.array([position[name] for name in columns["names"].tolist()])
    placed = ~np.isnan(cars.azimuth)
    weight = np.ones(len(cars.file))
    weight[placed] = view_weights(cars.azimuth[placed])
    parts = {}
    for part, code in PARTS.items():
        own = kind[index] == code
        parts[part] = {k: v[own] for k, v in columns.items()}
        parts[part]["model"] = cars.model[index[own]]
        parts[part]["album"] = deal(parts[part]["model"])
        parts[part]["weight"] = weight[index[own]]
    return parts


def concatenated(runs: Sequence[Columns]) -> Columns:
    """Returns the rows of several runs as those of one."""
    return {k: np.concatenate([columns[k] for columns in runs]) for k in runs[0]}


def joined(runs: Sequence[Mapping[str, Columns]]) -> dict[str, Columns]:
    """Returns the parts of several runs as those of one."""
    return {part: concatenated([run[part] for run in runs]) for part in PARTS}


def deal(model: np.ndarray) -> np.ndarray:
    """Deals photos into albums of at most `ALBUM` photos of one car model, nearly equal in size.

    Example:
        >>> deal(np.array(["a"] * 9 + ["b"])).tolist()
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]
    """
    album, count = np.zeros(len(model), int), 0
    for name in dict.fromkeys(model.tolist()):
        own = np.flatnonzero(model == name)
        for part in np.array_split(own, -(-len(own) // ALBUM)):
            album[part] = count
            count += 1
    return album


def album_means(columns: Columns, values: np.ndarray) -> np.ndarray:
    """The weighted mean of float [N] values over each album."""
    _, album = np.unique(columns["album"], return_inverse=True)
    sums = np.bincount(album, values * columns["weight"])
    return sums / np.bincount(album, columns["weight"])


FEATURE_SCORES = ("energy", "nearest neighbour", "Mahalanobis")
# The share of the known cars whose brand is to stay named, and photos of a car: an album stands
# for a video, whose novelty is a mean over its frames as well, of all views alike.
NAMED, ALBUM = 0.95, 8


def fit_classes(inner: Mapping[str, Columns]) -> calibration.ClassCalibration:
    """Fits on known and unseen photos, both kinds counting alike."""
    photos, weights = together(inner)
    fitted = calibration.fit_classes(
        photos["log_probs"], photos["targets"][:, 0], weights, photos["part_novelty"]
    )
    if not len(inner["unknown"]["targets"]):
        return fitted
    known = inner["known"]
    limit = float(np.quantile(album_means(known, novelty_of(known)), NAMED))
    return dataclasses.replace(fitted, unknown_above=limit)


def fit_direction(inner: Mapping[str, Columns]) -> calibration.DirectionCalibration:
    """Fits on known and unseen photos, both kinds counting alike."""
    from carjax.training import tasks

    photos, weights = together(inner)
    return calibration.fit_direction(tasks.density_of(photos), photos["targets"], weights)


def together(
    parts: Mapping[str, Columns], names: Sequence[str] = MEASURED
) -> tuple[Columns, np.ndarray]:
    """Returns the photos of those parts in one, and weights that sum alike for each."""
    photos = {k: np.concatenate([parts[p][k] for p in names]) for k in parts[names[0]]}
    counts = [len(parts[p]["targets"]) for p in names]
    return photos, np.concatenate([np.full(n, 1 / n) for n in counts])


def novelty_of(columns: Columns) -> np.ndarray:
    """The head's own novelty, before calibration."""
    return np.asarray(calibration.novelty(jnp.asarray(columns["log_probs"])))


def state(columns: Columns, fitted: Any) -> Columns:
    """Returns the columns with the stated distribution in place of the head's own."""
    from carjax.training import tasks

    if isinstance(fitted, calibration.ClassCalibration):
        stated = calibration.state_classes(
            jnp.asarray(columns["log_probs"]), fitted, jnp.asarray(columns["part_novelty"])
        )
        return columns | {"log_probs": np.asarray(stated)}
    density = calibration.state_direction(tasks.density_of(columns), fitted)
    return columns | {k: np.asarray(v) for k, v in density._asdict().items()}


def auroc(known: np.ndarray, other: np.ndarray) -> float:
    """Probability that a score is larger for the others than for the known ones."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(other, known).statistic / (len(other) * len(known)))


def unknown_brands(inner: Mapping[str, Columns], outer: Mapping[str, Columns]) -> dict[str, float]:
    """How brands that were not trained on are told, in one outer fold: by photo and by album.

    `named` is the share that keeps a brand at the threshold of the inner folds, `named above 0.5`
    of those whose stated probability exceeds one half as well: of an album, that of all its photos
    together (`selection.pool_probabilities`), all views counting alike. A conformal set (Sadinle,
    Lei and Wasserman, 2019) holds every brand whose stated probability exceeds a limit that covers
    90% of the inner folds' known photos.
    """
    fitted = fit_classes(inner)
    assert fitted.unknown_above is not None
    probs = {part: np.exp(state(outer[part], fitted)["log_probs"]) for part in PARTS}
    found: dict[str, float] = {}
    scores = {
        "one minus the largest probability": novelty_of,
        "entropy": lambda c: np.asarray(certainty.entropy_from_logits(c["log_probs"])),
        "one minus the largest probability of a model": lambda c: c["part_novelty"],
        **{name: lambda c, name=name: c[name] for name in ("disagreement", *FEATURE_SCORES)},
    }
    for name, score in scores.items():
        for part in ("unknown", "unseen"):
            found[f"auroc {part}: {name}"] = auroc(score(outer["known"]), score(outer[part]))
    means = {part: album_means(outer[part], novelty_of(outer[part])) for part in PARTS}
    for part in ("unknown", "unseen"):
        found[f"auroc of albums {part}"] = auroc(means["known"], means[part])
    for part in PARTS:
        named = novelty_of(outer[part]) <= fitted.unknown_above
        found[f"named: {part}"] = float(named.mean())
        found[f"named above 0.5: {part}"] = float((named & (probs[part].max(1) > 0.5)).mean())
        named = means[part] <= fitted.unknown_above
        columns = [probs[part], outer[part]["weight"]]
        albums = [
            [c[outer[part]["album"] == a] for c in columns] for a in np.unique(outer[part]["album"])
        ]
        pooled = [selection.pool_probabilities(p, weight).max() for p, weight in albums]
        found[f"albums named: {part}"] = float(named.mean())
        found[f"albums named above 0.5: {part}"] = float((named & (np.array(pooled) > 0.5)).mean())
    own = np.exp(state(inner["known"], fitted)["log_probs"])
    limit = np.quantile(own[np.arange(len(own)), inner["known"]["targets"][:, 0]], 0.1)
    for part in PARTS:
        sets = probs[part] >= limit
        found[f"conformal set, mean size: {part}"] = float(sets.sum(1).mean())
        found[f"conformal set, empty: {part}"] = float((~sets.any(1)).mean())
        label = outer[part]["targets"][:, 0]
        found[f"conformal set, covers: {part}"] = float(sets[np.arange(len(label)), label].mean())
    return found


def reliability(folds: Sequence[Columns], bins: int = 15) -> list[list[float]]:
    """Rows of photos, mean confidence and accuracy of every bin that holds at least 20 photos."""
    probs = np.concatenate([np.exp(c["log_probs"]) for c in folds])
    right = probs.argmax(1) == np.concatenate([c["targets"][:, 0] for c in folds])
    index = certainty.confidence_bins(probs.max(1), bins)
    chosen = [index == b for b in range(bins) if (index == b).sum() >= 20]
    return [[int(m.sum()), float(probs.max(1)[m].mean()), float(right[m].mean())] for m in chosen]


def recall(folds: Sequence[Columns], classes: Sequence[str]) -> dict[str, list[float]]:
    """Class → its photos, and the share of them that is given it, over all folds together."""
    label = np.concatenate([c["targets"][:, 0] for c in folds])
    named = np.concatenate([c["log_probs"].argmax(1) for c in folds])
    own = {name: named[label == i] == i for i, name in enumerate(classes)}
    return {name: [len(right), float(right.mean())] for name, right in own.items() if len(right)}


def reliability_svg(results: Mapping[str, Any]) -> str:
    """Draws the share of right answers over the stated probability, a panel per attribute."""
    side, gap = 170, 40
    names = [a.name for a in CAR if a.name in results["known"] and a.name != "orientation"]
    colours = {"known": "#2563eb", "unseen": "#dc2626"}
    body = []
    for i, name in enumerate(names):
        x0, y0 = gap + i * (side + gap), 30
        body.append(
            f'<text x="{x0 + side / 2}" y="18" text-anchor="middle">{name}</text>'
            f'<path d="M{x0} {y0}v{side}h{side}M{x0} {y0 + side}L{x0 + side} {y0}" fill="none" '
            'stroke="#888" stroke-width="1"/>'
        )
        for part, colour in colours.items():
            points = [
                (x0 + side * confidence, y0 + side * (1 - accuracy), 1.5 + 0.05 * count**0.5)
                for count, confidence, accuracy in results[part][name]["reliability"]
            ]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
            body.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
            for x, y, radius in points:
                body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>')
        body.append(
            f'<text x="{x0 + side / 2}" y="{y0 + side + 18}" text-anchor="middle">stated</text>'
        )
    body.append(
        f'<text x="12" y="{30 + side / 2}" transform="rotate(-90 12 {30 + side / 2})" '
        'text-anchor="middle">right</text>'
        f'<text x="{gap + 8}" y="46" fill="{colours["known"]}">known models</text>'
        f'<text x="{gap + 8}" y="62" fill="{colours["unseen"]}">unseen models</text>'
    )
    width, height = gap + len(names) * (side + gap), side + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" fill="#666" role="img" '
        'aria-label="Share of right answers over stated probability">' + "".join(body) + "</svg>\n"
    )


def keep(folder: pathlib.Path, columns: Columns) -> None:
    """Writes stated predictions as a run does its own, for `carjax experiment hypothesis`."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / "held_out.npz") as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, **columns)


def evaluate(values: Any, cars: Cars, attribute: str, results: dict[str, Any]) -> Any:
    """Adds an attribute's figures to the results; returns the calibration to ship.

    That is fitted on the outer folds' photos, every one predicted by heads that did not see it.
    """
    workdir = pathlib.Path(values.workdir)
    folds = []
    for outer in range(FOLDS):
        runs = []
        for name, inner in runs_of(outer).items():
            run = workdir / f"{attribute}-{outer}-{name}"
            kind = split(cars, attribute, outer, inner, INNER_FOLDS)
            columns = dict(np.load(run / "held_out.npz"))
            if inner is None and attribute == "brand":
                config = configure(values, attribute)
                config.fold, config.splits = 1, str(workdir / "splits" / run.name)
                names, scored = feature_scores.scores(run, config, values)
                assert (names == columns["names"]).all()
                columns |= scored
            parts = parts_of(cars, columns, kind)
            for own in parts.values():  # albums of different runs stay apart
                own["album"] = own["album"] + (outer * INNER_FOLDS + len(runs)) * len(cars.file)
            runs.append(parts)
        folds.append((joined(runs[:-1]), runs[-1]))
    fit = fit_classes if isinstance(find(CAR, attribute), Categorical) else fit_direction
    fits = [fit(inner) for inner, _ in folds]
    for part in (*MEASURED, "elsewhere"):
        raw = [outer[part] for _, outer in folds]
        if not sum(len(columns["targets"]) for columns in raw):
            continue  # the direction of no such photo is known
        stated = [state(c, f) for c, f in zip(raw, fits, strict=True)]
        if part == "elsewhere":  # families differ in size, and so do the folds: all photos as one
            raw, stated = ([concatenated(columns)] for columns in (raw, stated))
        crossval.report(results, f"{part}, as trained", attribute, raw)
        crossval.report(results, part, attribute, stated)
        for i, columns in enumerate(stated):
            keep(workdir / part / f"{attribute}-{i}", columns)
        if attribute == "orientation":
            corrected = [crossval.with_corrections(c) for c in stated]
            crossval.report(results, f"{part}, corrected labels", attribute, corrected)
        else:
            errors = [
                certainty.adaptive_ece(np.exp(c["log_probs"]), c["targets"][:, 0]) for c in stated
            ]
            results[part][attribute]["adaptive_ece"] = {"mean": float(np.mean(errors))}
            results[part][attribute]["reliability"] = reliability(stated)
            classes = find(CAR, attribute).classes
            results[part][attribute]["recall"] = recall(stated, classes)
    count = {part: sum(len(outer[part]["targets"]) for _, outer in folds) for part in PARTS}
    results.setdefault("photos", {})[attribute] = count
    if count["unknown"]:
        told = [unknown_brands(*pair) for pair in folds]
        results["unknown brands"] = {k: float(np.mean([t[k] for t in told])) for k in told[0]}
        print(json.dumps(results["unknown brands"], indent=1))
    return fit(joined([outer for _, outer in folds]))


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    names = [a.name for a in CAR]
    flags.DEFINE_list("attributes", names, "which heads: names of config files", flag_values=values)
    flags.DEFINE_list("outer", [str(i) for i in range(FOLDS)], "outer folds", flag_values=values)
    flags.DEFINE_string("configs", str(HERE.parent / "configs"), "config files", flag_values=values)
    flags.DEFINE_list("set", [], "fields of every config: head.hidden=128,…", flag_values=values)
    flags.DEFINE_string("workdir", None, "one folder per run is made here", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    flags.DEFINE_string(
        "calibration",
        None,
        "where to write what `carjax bundle --calibration` takes",
        flag_values=values,
    )
    flags.DEFINE_string("svg", None, "where to draw the reliability", flag_values=values)
    flags.DEFINE_string("out", str(HERE / "results" / "nested.json"), "results", flag_values=values)
    common.parse(values, argv, SYNOPSIS)
    if not values.workdir:
        raise UsageError("give --workdir=DIR (see --help)")
    runtime.set_up_jax()
    from carjax.datasets import photos

    values.data_dir = str(photos.data_root(values.data_dir))
    cars = read_cars(pathlib.Path(values.data_dir))
    for attribute in values.attributes:
        for outer in [int(i) for i in values.outer]:
            for name, inner in runs_of(outer).items():
                kind = split(cars, attribute, outer, inner, INNER_FOLDS)
                config = configure(values, attribute)
                train(values, cars, config, f"{attribute}-{outer}-{name}", kind)
    if len(values.outer) < FOLDS:
        return 0
    out = pathlib.Path(values.out)
    results = json.loads(out.read_text()) if out.is_file() else {}
    fitted_file = pathlib.Path(values.calibration) if values.calibration else None
    numbers = json.loads(fitted_file.read_text()) if fitted_file and fitted_file.is_file() else {}
    results["machine"] = machine.name()
    results["protocol"] = (
        f"mean over {FOLDS} outer folds; known: photos left out of models that were trained on; "
        "unseen: photos of models that were not; elsewhere: photos of another source, of families "
        "of models that were not, all folds as one; calibration and threshold of inner folds; "
        "one plain view per photo; original labels; 95% bootstrap over what `resampled` says, "
        f"{crossval.RESAMPLES} resamples of every fold"
    )
    for attribute in values.attributes:
        fitted = evaluate(values, cars, attribute, results)
        numbers[attribute] = dataclasses.asdict(fitted)
        crossval.write(results, out)
        if fitted_file:
            crossval.write(numbers, fitted_file)
    if values.svg:
        files.write(values.svg, reliability_svg(results))
    return 0


if __name__ == "__main__":
    common.script("nested", main)
