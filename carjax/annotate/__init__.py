"""The annotated video: what is known of the car after each frame, beside that frame."""

from carjax.annotate.render import annotate

__all__ = ["annotate"]
