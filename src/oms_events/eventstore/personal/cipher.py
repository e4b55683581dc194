"""The port of personal data: fields that are encrypted under a key per person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel

IfForgotten = Literal["refuse", "replace"]


class FieldCipher(Protocol):
    """Encrypts the personal fields of events before they are stored, and reads them back.

    What is encrypted says so itself, so that reading needs no model and survives upcasting.
    """

    async def protect(
        self, model: BaseModel, data: dict[str, Any], *, subject: str, if_forgotten: IfForgotten = "refuse"
    ) -> dict[str, Any]:
        """The model's data (JSON) with its personal fields encrypted; the same object when it has none.

        `subject` is whose data it is, unless the model says another. New data of somebody who was forgotten raises
        `PersonForgottenError`; with `replace` it is replaced, as suits what is derived from older data, such as
        snapshots. Raises `PersonalDataError`, also for data that looks like encrypted data, and a `StorageError`.
        """
        ...

    async def reveal(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        """JSON documents with what is encrypted in clear text, or replaced where the key was deleted.

        Aligned with `payloads`; the same object for one without encrypted parts. Raises `PersonalDataError` for
        what is damaged, and a `StorageError`.
        """
        ...
