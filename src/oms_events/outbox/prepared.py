"""Events made ready for a transaction that somebody else sends."""

from __future__ import annotations

from collections.abc import Sequence

from oms_events.errors import PreparedActionsError
from oms_events.outbox.commit import Committer
from oms_events.outbox.reservations import Placement
from oms_events.outbox.store import Action


class Prepared:
    """The actions that put events into the outbox, to append to a TransactWriteItems call of your own.

    Made by `Outbox.prepare`. They hold sequence numbers: use them once, at once, and prepare anew for each new
    try of a transaction that failed. Sending the identical request again with its ClientRequestToken, after
    an answer that did not come, is no new try.
    """

    def __init__(self, committer: Committer, placement: Placement, actions: Sequence[Action]) -> None:
        self._committer = committer
        self._placement = placement
        self._actions: Sequence[Action] | None = actions
        self._told = False
        self.count = len(actions)
        """How many of the transaction's 100 actions these are."""

    @property
    def actions(self) -> list[Action]:
        """The actions, in the form of boto3's low-level client (`{"Put": {"TableName": ..., "Item": {...}}}`).

        Given once. Raises `PreparedActionsError` the second time, and `prepared_for` seconds after `prepare`.
        """
        actions, self._actions = self._actions, None
        if actions is None:
            raise PreparedActionsError(
                "these actions were given out before; a second transaction with them would put an effect before "
                "its cause: prepare the events again"
            )
        if self._committer.is_too_old(self._placement):
            self.refused()
            raise PreparedActionsError(
                "these actions are older than prepared_for: prepare the events again, last before your transaction"
            )
        return list(actions)

    def committed(self) -> None:
        """Your transaction was committed: the processor of this process delivers at once. Not needed."""
        if self._actions is not None:
            raise PreparedActionsError("the actions were never taken, so nothing can have been committed")
        if not self._told:
            self._told = True
            self._committer.committed(self._placement)

    def refused(self) -> None:
        """Your transaction was certainly refused, or never sent: nobody need look for its numbers. Not needed.

        Never after an answer that did not come.
        """
        self._actions = None
        if not self._told:
            self._told = True
            self._committer.voided(self._placement)
