"""The file of a trained head: its weights, what they are of, and how they came about."""

from __future__ import annotations

from typing import Any

import ml_collections

import carjax
from carjax import localise, model
from carjax.backbones import registry
from carjax.temporal import sequence_heads, sequence_model
from carjax.training import config as configs
from carjax.training import tasks
from carjax.training.material import Material


def save(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    params: Any,
    result: dict[str, Any],
    weights_sha256: str,
    material: Material,
    path: Any,
) -> None:
    """Writes what a run trained.

    Args:
        config: checked and resolved.
        task: what was trained.
        params: its parameters.
        result: the content of `result.json`.
        weights_sha256: `model.weights_hash` of the backbone.
        material: what was trained on, and what was held out.
        path: of the file: a bundle of one head, or of the car box alone, that `carjax bundle` can
            join to others; or a sequence head.

    Raises:
        CarjaxError: a weight is not finite, or too large for float16.
        OSError: the file cannot be written.
    """
    told, hashes = material.trained_on()
    card = {
        "bundle": f"car_{config.attribute}",
        "version": carjax.__version__,
        "backbone": config.backbone,
        "backbone_sha256": weights_sha256,
        "training": {config.attribute: result},
        **told,
    }
    spec = task.spec
    if isinstance(spec, sequence_heads.SequenceSpec):
        sequence_model.save(sequence_model.SequenceModel(params, spec, card, hashes), path)
        return
    boxes = isinstance(spec, localise.LocaliseSpec)
    own = registry.spec_of(config.backbone).input_size
    bundle = model.Model(
        params={"localise": params} if boxes else {"heads": {config.attribute: params}},
        spec=model.Spec(
            backbone=config.backbone,
            heads=() if isinstance(spec, localise.LocaliseSpec) else (spec,),
            localise=spec if isinstance(spec, localise.LocaliseSpec) else None,
            input_size=own if boxes else configs.input_size(config),
        ),
        card=card,
        training_hashes=hashes,
    )
    model.save(bundle, path)
