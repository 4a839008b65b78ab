"""Training one head at a time on frozen features."""

from carjax.training.optimiser import head_mask

__all__ = ["head_mask"]
