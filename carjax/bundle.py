"""Separately trained heads, joined into one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import carjax
from carjax.attributes import CAR, CONTENT
from carjax.errors import CarjaxError
from carjax.model import Model, Spec, check_directions


def _apart(part: Model) -> tuple[Model, int]:
    """A model as `carjax train` left it, its content head in its place, and that head's input size.

    The size is 0 where there is no such head; a joined bundle's belongs to its car box.
    """
    mine = [h for h in part.spec.heads if h.attribute.name == CONTENT.name]
    if not mine:
        size = part.spec.localise.input_size if part.spec.content and part.spec.localise else 0
        return part, size
    heads = {k: v for k, v in part.params["heads"].items() if k != CONTENT.name}
    params = {**part.params, "heads": heads, CONTENT.name: part.params["heads"][CONTENT.name]}
    rest = tuple(h for h in part.spec.heads if h.attribute.name != CONTENT.name)
    spec = dataclasses.replace(part.spec, heads=rest, content=mine[0])
    return dataclasses.replace(part, params=params, spec=spec), part.spec.input_size


def join(parts: Sequence[Model], sources: Sequence[str], name: str) -> Model:
    """Joins models that share a backbone: heads in the schema's order, at most one car box.

    A head named content goes with the car box, whose look it reads.

    Args:
        parts: one or more models.
        sources: what to call each in an error.
        name: of the result.

    Raises:
        CarjaxError: other backbones or weights, other input sizes, an attribute twice, two
            directions, or content without the car box of its input size.
    """
    first = parts[0]
    taken: dict[str, str] = {}
    found = {}
    box, content = None, None
    looks: dict[int, str] = {}  # input size that a content head was trained at → source
    sizes: dict[int, str] = {}
    params: dict[str, dict] = {"backbone": first.params["backbone"], "heads": {}}
    training: dict[str, object] = {}
    for given, source in zip(parts, sources, strict=True):
        part, content_size = _apart(given)
        if content_size:
            looks[content_size] = source
        for key, what in (("backbone", "backbone"), ("backbone_sha256", "backbone's weights")):
            if part.card[key] != first.card[key]:
                raise CarjaxError(
                    f"{source}: trained on another {what} than {sources[0]} "
                    f"({part.card[key]}, not {first.card[key]})"
                )
        own = [h.attribute.name for h in (*part.spec.heads, part.spec.content) if h]
        own += ["localise"] if part.spec.localise else []
        for attribute in own:
            if attribute in taken:
                raise CarjaxError(f"{source}: {attribute} comes from {taken[attribute]} already")
            taken[attribute] = source
        if part.spec.heads:
            sizes.setdefault(part.spec.input_size, source)
        if len(sizes) > 1:
            told = ", ".join(f"{size} ({path})" for size, path in sizes.items())
            raise CarjaxError(f"heads were trained at different input sizes: {told}")
        if part.spec.content:
            content = part.spec.content
            params[CONTENT.name] = part.params[CONTENT.name]
        for head in part.spec.heads:
            found[head.attribute.name] = head
            params["heads"][head.attribute.name] = part.params["heads"][head.attribute.name]
        if part.spec.localise:
            box = part.spec.localise
            params["localise"] = part.params["localise"]
        training |= part.card.get("training", {})
    for size, source in looks.items():
        if box is None or box.input_size != size:
            raise CarjaxError(f"{source}: content needs a car box that looks at {size} pixels")
    try:
        check_directions(head.attribute for head in found.values())
    except ValueError as error:
        raise CarjaxError(f"{', '.join(sources)}: {error}") from None
    order = [a.name for a in CAR if a.name in found]
    order += [a for a in found if a not in order]
    return Model(
        params=params,
        spec=Spec(
            backbone=first.spec.backbone,
            heads=tuple(found[a] for a in order),
            localise=box,
            input_size=next(iter(sizes), first.spec.input_size),
            content=content,
        ),
        card={
            "bundle": name,
            "version": carjax.__version__,
            "backbone": first.card["backbone"],
            "backbone_sha256": first.card["backbone_sha256"],
            "training": {
                a: training[a] for a in [*order, "localise", CONTENT.name] if a in training
            },
            "models": sorted({m for part in parts for m in part.card.get("models", ())}),
        },
        training_hashes=frozenset().union(*(p.training_hashes for p in parts)),
    )
