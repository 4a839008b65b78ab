"""What is read from a frame: the schema of attributes, and ImageNet's vehicle classes.

A schema is a tuple of attributes. `CAR` is the one that carjax ships; any object can have its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Categorical:
    """An attribute that takes one of several named classes.

    Example:
        >>> Categorical("doors", ("2", "3", "4", "5")).classes[1]
        '3'
    """

    name: str
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Angular:
    """An attribute that is a direction on the circle, in degrees [0, 360)."""

    name: str


Attribute = Categorical | Angular
Schema = tuple[Attribute, ...]

# The 12 types in CompCars' order (Yang et al., CVPR 2015).
TYPES = (
    "MPV",
    "SUV",
    "sedan",
    "hatchback",
    "minibus",
    "fastback",
    "estate",
    "pickup",
    "hardtop convertible",
    "sports",
    "crossover",
    "convertible",
)
# fmt: off
BRANDS = (
    "AM General", "Acura", "Aston Martin", "Audi", "BMW", "Bentley", "Bugatti", "Buick",
    "Cadillac", "Chevrolet", "Chrysler", "Daewoo", "Dodge", "Eagle", "Ferrari", "Fiat", "Fisker",
    "Ford", "GMC", "Geo", "Honda", "Hummer", "Hyundai", "Infiniti", "Isuzu", "Jaguar", "Jeep",
    "Lamborghini", "Land Rover", "Lincoln", "MINI", "Maybach", "Mazda", "McLaren",
    "Mercedes-Benz", "Mitsubishi", "Nissan", "Plymouth", "Porsche", "Ram", "Rolls-Royce",
    "Scion", "Smart", "Spyker", "Suzuki", "Tesla", "Toyota", "Volkswagen", "Volvo",
)
# fmt: on
DOORS = ("2", "3", "4", "5")
SEATS = ("2", "4", "5", ">5")

CAR: Schema = (
    Categorical("type", TYPES),
    Categorical("brand", BRANDS),
    Categorical("doors", DOORS),
    Categorical("seats", SEATS),
    Angular("orientation"),
)

# The eight views, centred on 0, 45, …, 315 degrees of azimuth, named by the side that is seen
# (PASCAL3D+ convention: 0 = front towards the camera, 90 = nose to image-left).
VIEWS = (
    "front",
    "front-left",
    "left",
    "rear-left",
    "rear",
    "rear-right",
    "right",
    "front-right",
)


def view_deg(name: str) -> float:
    """Returns the azimuth on which one of the `VIEWS` is centred, in degrees.

    Raises:
        ValueError: there is no such view.

    Example:
        >>> view_deg("left")
        90.0
    """
    return 360.0 / len(VIEWS) * VIEWS.index(name)


# What a frame shows of the car: all of it (or all but a sliver), a part that is close up or cut off
# by the frame's border, or no car.
CONTENT = Categorical("content", ("whole", "part", "none"))

# ImageNet-1k (ILSVRC 2012) classes of road vehicles with four or more wheels, and of their parts.
VEHICLE_CLASSES: tuple[int, ...] = (
    407,  # ambulance
    436,  # beach wagon
    468,  # cab
    511,  # convertible
    555,  # fire engine
    569,  # garbage truck
    609,  # jeep
    627,  # limousine
    654,  # minibus
    656,  # minivan
    661,  # Model T
    675,  # moving van
    717,  # pickup
    734,  # police van
    751,  # racer
    757,  # recreational vehicle
    779,  # school bus
    817,  # sports car
    864,  # tow truck
    867,  # trailer truck
    479,  # car wheel
    581,  # grille
)


def find(schema: Schema, name: str) -> Attribute:
    """Returns the attribute of that name.

    Raises:
        ValueError: the schema has no such attribute.

    Example:
        >>> find(CAR, "doors").name
        'doors'
    """
    for attribute in schema:
        if attribute.name == name:
            return attribute
    raise ValueError(f"no attribute {name!r}; this model has: {', '.join(a.name for a in schema)}")


def class_name(value: str | float, classes: Container[str]) -> str:
    """The class that a label names, if it is one: 42 of 42.0, as spreadsheets write numbers."""
    name = str(value)
    return name if name in classes else name.removesuffix(".0")


def attribute_to_json(attribute: Attribute) -> dict[str, Any]:
    """Returns the JSON form of an attribute: its name, and its classes if it has some.

    Example:
        >>> attribute_to_json(Categorical("doors", ("2", "3")))
        {'name': 'doors', 'classes': ['2', '3']}
    """
    if isinstance(attribute, Categorical):
        return {"name": attribute.name, "classes": list(attribute.classes)}
    return {"name": attribute.name}


def attribute_from_json(row: Mapping[str, Any]) -> Attribute:
    """Inverts `attribute_to_json`.

    Raises:
        KeyError: the row has no name.
    """
    if "classes" in row:
        return Categorical(row["name"], tuple(row["classes"]))
    return Angular(row["name"])
