"""The probabilistic heads: one small Flax module per attribute, from features to a distribution."""

from carjax.heads.classes import CategoricalHead, ClassPrediction, combine, join_parts
from carjax.heads.directions import (
    BiternionHead,
    VonMisesHead,
    VonMisesMixtureHead,
    angle_of,
    kappa_of,
    stated,
)
from carjax.heads.latent import LatentMixtureHead, LatentTerms, normal_points
from carjax.heads.registry import ANGULAR_HEADS, check_density, create, find_density, register
from carjax.heads.spec import HeadSpec, Trunk

__all__ = [
    "ANGULAR_HEADS",
    "BiternionHead",
    "CategoricalHead",
    "ClassPrediction",
    "HeadSpec",
    "LatentMixtureHead",
    "LatentTerms",
    "Trunk",
    "VonMisesHead",
    "VonMisesMixtureHead",
    "angle_of",
    "check_density",
    "combine",
    "create",
    "find_density",
    "join_parts",
    "kappa_of",
    "normal_points",
    "register",
    "stated",
]
