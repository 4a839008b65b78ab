"""What the seller knows of the car, and what the video says to that.

A stated value is not argued with: its best photo is the frame that shows it best. But a listing
that says something else than its photos show is worth a word, so a strong disagreement is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from carjax.attributes import Categorical, Schema, class_name, find
from carjax.errors import UsageError

# The video strongly disagrees where it gives another class at least the first probability, and the
# stated one at most the second: odds of five to one or more.
DISAGREES_ABOVE = 0.5
DISAGREES_BELOW = 0.1


@dataclasses.dataclass(frozen=True)
class Known:
    """A value that the seller states, against the video.

    Attributes:
        value: as stated; where the model knows the class, in the model's spelling.
        verdict: 'agrees': it is the video's most probable class; 'unsure'; 'disagrees': strongly,
            see above; 'outside': the model knows no such class.
        looks_like: the video's most probable class where it disagrees, else None.
    """

    value: str
    verdict: str
    looks_like: str | None = None


def parse(words: Sequence[str]) -> dict[str, str]:
    """Reads what is known: `attribute:value` each.

    Raises:
        UsageError: a word is not of that form, or an attribute is named twice.

    Example:
        >>> parse(["brand:BMW", "seats: >5"])
        {'brand': 'BMW', 'seats': '>5'}
    """
    known: dict[str, str] = {}
    for word in words:
        name, colon, value = (part.strip() for part in word.partition(":"))
        if not (colon and name and value):
            raise UsageError(f"known: {word!r} is not of the form attribute:value, as brand:BMW")
        if name in known:
            raise UsageError(f"known: {name} is given twice")
        known[name] = value
    return known


def check(schema: Schema, known: Mapping[str, str], chosen: Collection[str] | None = None) -> None:
    """Raises a UsageError for an attribute that has no classes, is none of the model's, or is none
    of the chosen ones."""
    for name in known:
        try:
            attribute = find(schema, name)
        except ValueError as error:
            raise UsageError(f"known: {error}") from None
        if not isinstance(attribute, Categorical):
            raise UsageError(f"known: {name} is a direction and has no value to state")
        check_chosen(name, chosen)


def check_chosen(name: str, chosen: Collection[str] | None) -> None:
    """Raises a UsageError if no photo is chosen of an attribute; None: of all are some chosen."""
    if chosen is not None and name not in chosen:
        raise UsageError(f"known: {name} is not among the chosen attributes: {', '.join(chosen)}")


def class_of(attribute: Categorical, value: str | float) -> int | None:
    """The index of a stated value among the classes, whatever its case; None if it is none.

    Example:
        >>> class_of(Categorical("brand", ("Audi", "BMW")), "bmw")
        1
    """
    folded = [name.casefold() for name in attribute.classes]
    # Doors and seats may come as numbers, and 4 as 4.0.
    stated = class_name(str(value).casefold(), folded)
    return folded.index(stated) if stated in folded else None


def compare(attribute: Categorical, value: str | float, pooled: np.ndarray) -> Known:
    """Compares a stated value with the video's class probabilities.

    Args:
        attribute: whose value it is.
        value: as stated.
        pooled: float [K]; as from `selection.pool_probabilities`.

    Example:
        >>> brand = Categorical("brand", ("Audi", "BMW"))
        >>> compare(brand, "bmw", np.array([0.95, 0.05]))
        Known(value='BMW', verdict='disagrees', looks_like='Audi')
    """
    stated = class_of(attribute, value)
    if stated is None:
        return Known(str(value), "outside")
    best = int(np.argmax(pooled))
    name = attribute.classes[stated]
    if best == stated:
        return Known(name, "agrees")
    if pooled[best] >= DISAGREES_ABOVE and pooled[stated] <= DISAGREES_BELOW:
        return Known(name, "disagrees", attribute.classes[best])
    return Known(name, "unsure")


def sureness(choice: Mapping[str, Any]) -> float:
    """How well a photo shows what is said of it, in [0, 1].

    The certainty; but of a stated class its own probability: a frame may be certain of another.

    Args:
        choice: of an attribute that has a photo, in `selection.json`.

    Example:
        >>> sureness({"value": "BMW", "probability": 0.1, "certainty": 0.9, "known": {}})
        0.1
    """
    stated = "known" in choice and choice["value"] is not None
    return choice["probability" if stated else "certainty"]


def notice(choice: Mapping[str, Any]) -> str:
    """What to tell of a choice of `selection.json`; empty where there is nothing.

    Example:
        >>> notice({"known": {"value": "BMW", "verdict": "disagrees", "looks_like": "Audi"}})
        'looks like Audi, listing says BMW'
    """
    known = choice.get("known")
    if known is None:
        return ""
    if known["verdict"] == "disagrees":
        return f"looks like {known['looks_like']}, listing says {known['value']}"
    if known["verdict"] == "outside":
        return (
            f"listing says {known['value']}, which the model does not know: "
            "its photos go by their entropy alone"
        )
    return ""
