"""Whether a request may have reached AWS; importable without aioboto3."""

from __future__ import annotations


class Sending:
    """Whether a request's body has begun to leave: before that, nothing can have been stored."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False
