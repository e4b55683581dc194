"""Takes records that were read into memory, or leaves them in the table, and asks the rules for their plans."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from oms_events.errors import OmsEventsError, UnroutableEventError
from oms_events.outbox.layering import EpochGate
from oms_events.outbox.outcomes import Outcomes
from oms_events.outbox.records import FORMAT, UNREADABLE, UNROUTABLE, DeadLetter, StoredRecord, is_settled
from oms_events.outbox.shared import Shared

if TYPE_CHECKING:
    from oms_events.outbox.relay import PartitionRelay

_log = logging.getLogger("oms_events")
_MAX_NOT_BEFORE: Final = 10_000


class Loader:
    """Loads the records of one relay into its window, in the order in which they are given."""

    def __init__(
        self, relay: PartitionRelay, shared: Shared, outcomes: Outcomes, epochs: EpochGate | None
    ) -> None:
        self._relay = relay
        self._partition = relay.partition
        self._window = relay.window
        self._gone = relay.gone
        self._shared = shared
        self._outcomes = outcomes
        self._epochs = epochs
        # Records that were left although it is not their time yet.
        self._not_before: dict[str, float] = {}

    def load(self, record: StoredRecord) -> bool:
        """Takes a record into memory and publishes what may go; says whether something new goes."""
        if record.sk in self._gone:
            return False
        if record.format != FORMAT:
            self._leave_unknown(record)
            return False
        event = record.event
        if event is None:
            self._outcomes.bury_whole(self._letter(record, UNREADABLE, record.problem or "cannot be read"))
            return False
        if (self._epochs is not None or self._not_before) and self._is_early(record):
            return False
        if self._outcomes.is_writing:
            record = self._outcomes.newest(record)
        try:
            plan = record.state.plan or self._shared.router.plan_event(event)
        except UnroutableEventError as error:
            self._outcomes.bury_whole(self._letter(record, UNROUTABLE, str(error)))
            return False
        except OmsEventsError as error:
            self._outcomes.bury_whole(self._letter(record, UNREADABLE, str(error)))
            return False
        except Exception:
            _log.exception(
                "deciding about a record of partition %s failed; it stays in the table", self._partition
            )
            self._leave_alone(record)
            return False
        if record.state.states and is_settled(plan, record.state.states):
            # Purged while it was held, or its owner ended before it could remove it.
            self._outcomes.remove_settled(record, plan)
            return False
        lanes = self._window.load(record, event, plan, known=self._outcomes.being_written(record.sk))
        if not lanes:
            return False
        self._relay.submit(lanes)
        return True

    def _is_early(self, record: StoredRecord) -> bool:
        if self._epochs is not None and self._epochs.is_busy(self._partition.bucket.epoch, record.key):
            self._leave_alone(record)
            self._shared.alert_once(
                "layout",
                f"keys of layout {self._partition.bucket.epoch} of table {self._shared.store.table} wait for "
                "records in older layouts: see `oms-events outbox list --pending`",
            )
            return True
        until = self._not_before.get(record.sk)
        if until is None:
            return False
        if self._shared.clock.monotonic() < until:
            self._leave_alone(record)
            return True
        del self._not_before[record.sk]
        return False

    def not_before(self, sk: str, until: float) -> None:
        """The record is left until then."""
        if len(self._not_before) < _MAX_NOT_BEFORE:
            self._not_before[sk] = until

    def _leave_alone(self, record: StoredRecord) -> None:
        self._window.left += 1
        if record.key is not None:
            self._window.hold_key(record.key, ("*",))

    def _leave_unknown(self, record: StoredRecord) -> None:
        self._leave_alone(record)
        self._shared.alert_once(
            "unknown_format",
            f"table {self._shared.store.table} has records of format {record.format}, and this release knows "
            f"{FORMAT}: they are left alone, and their keys wait; upgrade this processor",
        )

    def _letter(self, record: StoredRecord, platform: str, reason: str) -> DeadLetter:
        return DeadLetter(
            platform=platform, platforms=(platform,), key=record.key, event=record.event, reason=reason,
            code=platform, attempts=0, added=record.added, failed=self._shared.wall_ms(),
            origin=self._partition, origin_sk=record.sk, history=record.history, raw=record.raw,
        )  # fmt: skip
