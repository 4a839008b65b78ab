"""The end of a `with` block, where all that it does is to close."""

from __future__ import annotations

import abc
import types
from typing import Self


class Closing(abc.ABC):
    """What is closed where its `with` block ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Closes what is open."""
