"""Carries out what the results of attempts mean: goes on, tries later, leaves, settles, buries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from oms_events.errors import FailureClass, PublishError
from oms_events.instrumentation.hooks import DeadLettered, DuplicateAcks, Relayed, RelayRetried
from oms_events.outbox.records import (
    DeadLetter,
    PlatformState,
    RecordState,
    StoredRecord,
    is_settled,
    rest_of,
)
from oms_events.outbox.shared import Shared
from oms_events.outbox.verdict import Verdict, judge, reason_of
from oms_events.outbox.window import Entry, Lane
from oms_events.publishing import Outcome, Plan, PublishResult, PublishResults
from oms_events.resilience.backoff import RetryConfig

if TYPE_CHECKING:
    from oms_events.outbox.relay import PartitionRelay

_DENIED: Final = (FailureClass.PLATFORM_DENIED, FailureClass.ADDRESS_DENIED)
_ERROR_LENGTH: Final = 300
_KEPT_ATTEMPTS: Final = 3
"""From so many attempts on they are written down, so that a new owner goes on counting."""
_DELIVERED: Final = PlatformState.DELIVERED
_REPORTED: Final = (PlatformState.DELIVERED, PlatformState.REJECTED)


class Outcomes:
    """Settles the records of one relay. All methods are sync: what is to be written goes to the settler."""

    def __init__(self, relay: PartitionRelay, shared: Shared) -> None:
        self._relay = relay
        self._window = relay.window
        self._shared = shared
        config = shared.config
        self._retry = RetryConfig(initial=config.retry_initial, maximum=config.retry_maximum)
        self._saving: dict[str, Entry] = {}
        self._doomed: list[str] = []
        self._added: list[int | None] = []
        self._is_removing = False
        self._writes = 0
        self._duplicates: dict[str, int] = {}

    @property
    def is_writing(self) -> bool:
        """Whether something is, or since this reading began was, on its way to the table."""
        return bool(self._saving)

    def newest(self, record: StoredRecord) -> StoredRecord:
        """The record with what this process is about to write to it: a reading may be older than that."""
        entry = self._saving.get(record.sk)
        if entry is None or entry.record.state.generation != record.state.generation:
            return record
        return record._replace(state=replace(record.state, plan=entry.plan, states=dict(entry.states)))

    def being_written(self, sk: str) -> Entry | None:
        """The entry of a record of which something is on its way to the table: nobody may begin another one."""
        entry = self._saving.get(sk)
        return entry if entry is not None and entry.writes else None

    def forget_written(self) -> None:
        """A reading begins: it shows what was written before."""
        if self._saving:
            self._saving = {sk: entry for sk, entry in self._saving.items() if entry.writes}

    def take(self, lane: Lane, results: PublishResults | None) -> None:
        """Takes the results of one attempt of a lane."""
        if not lane.open:
            return
        if lane.entry.obsolete:
            # Requeued, replanned or settled by others meanwhile: what is true of it is read anew.
            self.were_left(self._window.leave(lane))
            self._relay.rescan()
            return
        if results is None:
            results = PublishResults({}, delivered=False, rule=None, strategy=None)
        if results.delivered and len(lane.platforms) == 1:
            (platform,) = lane.platforms
            self._shared.gates.worked(platform)
            if self._shared.troubles:
                self._shared.troubles.pop(platform, None)
            receipt = results[platform].receipt
            if receipt is not None and receipt.duplicate:
                self._heed_duplicate(lane, platform)
            entry = lane.entry
            entry.states[platform] = _DELIVERED
            entry.dirty = entry.dirty or len(entry.lanes) > 1
            if len(entry.plan.platforms) > 1 or entry.writes:
                self._go_on(lane)
            else:
                self._release_key(lane)
                self._remove(entry)
            return
        self._carry_out(lane, judge(lane, results), results)

    def were_left(self, entries: Iterable[Entry]) -> None:
        """Lanes of these entries were left in the table: what the others have done is written down."""
        for entry in entries:
            self._write_down(entry)
        self._shared.gave_room()

    # ------------------------------------------------------------------ verdicts

    def _carry_out(self, lane: Lane, verdict: Verdict, results: Mapping[str, PublishResult]) -> None:
        entry = lane.entry
        entry.states.update(verdict.states)
        entry.dirty = entry.dirty or bool(verdict.states)
        if verdict.is_delivered:
            for platform in verdict.states:
                self._shared.gates.worked(platform)
            self._go_on(lane)
        elif verdict.is_dead:
            self._bury(lane, *reason_of(results), results)
        else:
            if verdict.rejected:
                rest = [name for name in lane.plan.platforms if name not in verdict.rejected]
                lane.plan = rest_of(lane.plan, rest)
                self._write_down(entry)
            self._try_later(lane, verdict, results)

    def _try_later(self, lane: Lane, verdict: Verdict, results: Mapping[str, PublishResult]) -> None:
        shared, entry = self._shared, lane.entry
        down = [name for name in lane.plan.platforms if not shared.router.is_available(name)]
        self._alert_if_unknown_platform(down)
        now = shared.clock.monotonic()
        lane.tries += 1
        self._note_trouble(lane, verdict)
        # Neither an outage nor throttling says anything against the event, nor does time that ran out before it.
        blames_event = verdict.failed and not down and any(map(_was_tried, verdict.failed.values()))
        if blames_event:
            lane.attempts += 1
            if lane.counted_at is not None:
                lane.tried_for += now - lane.counted_at
            lane.counted_at = now
            code = self._used_up(lane)
            if code is not None:
                self._bury(lane, code, reason_of(results)[1], results)
                return
            entry.dirty = entry.dirty or lane.attempts >= _KEPT_ATTEMPTS
        else:
            lane.counted_at = None
        if any(result.outcome is Outcome.UNKNOWN for result in verdict.failed.values()):
            lane.unknown_since = now if lane.unknown_since is None else lane.unknown_since
        if down and len(down) == len(lane.plan.platforms):
            for platform in down:
                shared.gates.shut(platform)
            self.were_left(self._window.leave(lane))
            return
        self._wait(lane, verdict, results, now)

    def _wait(self, lane: Lane, verdict: Verdict, results: Mapping[str, PublishResult], now: float) -> None:
        shared, entry = self._shared, lane.entry
        shared.totals.retried += 1
        for platform, result in results.items():
            if result.error is not None and shared.hooks:
                failure = result.error.failure if isinstance(result.error, PublishError) else result.outcome.value
                shared.hooks(RelayRetried(platform, 1, {str(failure): 1}))
        pause = self._retry.delay(lane.tries, shared.draw)
        asked = [r.error.retry_after or 0.0 for r in results.values() if isinstance(r.error, PublishError)]
        pause = max(pause, *asked, 0.0)
        config = shared.config
        is_full = self._window.waiting >= config.window // 2 or shared.bytes_waiting() >= config.window_bytes // 2
        if is_full and not lane.failed:
            entry.dirty = entry.dirty or lane.attempts > 0
            self._relay.not_before(entry.record.sk, now + pause)
            self.were_left(self._window.leave(lane))
            return
        if lane.unknown_since is not None:
            window = shared.config.dedup_window
            if lane.unknown_since == now:
                pause = min(pause, window / 4)
            elif now + pause - lane.unknown_since > window:
                shared.alert_once(
                    "dedup_window",
                    f"events that may be stored on {', '.join(lane.plan.platforms)} are tried again after the "
                    f"{window:g} s for which it drops duplicates: consumers may see them twice",
                )
        if not lane.failed:
            self.were_left(self._window.fail(lane))
        if entry.dirty:
            self._write_down(entry)
        shared.alarm.at(now + pause, partial(self._relay.retry, lane))

    def _used_up(self, lane: Lane) -> str | None:
        config = self._shared.config
        if config.max_attempts is not None and lane.attempts >= config.max_attempts:
            return "max_attempts"
        if config.max_age is not None and lane.tried_for >= config.max_age:
            return "max_age"
        return None

    def _note_trouble(self, lane: Lane, verdict: Verdict) -> None:
        for platform, result in verdict.failed.items():
            code, text = reason_of({platform: result})
            lane.entry.last_error = f"{platform}: {code}: {text}"[:_ERROR_LENGTH]
            error = result.error
            if isinstance(error, PublishError) and error.failure in _DENIED:
                self._shared.troubles[platform] = lane.entry.last_error
                self._shared.alert_once("denied", f"events stay in the outbox: {lane.entry.last_error}")

    def _alert_if_unknown_platform(self, down: Iterable[str]) -> None:
        known = self._shared.router.platforms
        for platform in down:
            if platform not in known:
                self._shared.alert_once(
                    "platform_not_configured",
                    f"events in the outbox are owed to platform {platform}, which is not configured here: they "
                    "stay pending; configure it, or give them another plan with `outbox replan`",
                )

    def _heed_duplicate(self, lane: Lane, platform: str) -> None:
        if not lane.failed and not lane.attempts and not lane.entry.record.history:
            self._duplicates[platform] = self._duplicates.get(platform, 0) + 1

    def report(self) -> None:
        """Tells what a whole call has shown, once."""
        if self._duplicates:
            duplicates, self._duplicates = self._duplicates, {}
            for platform, count in duplicates.items():
                self._shared.hooks(DuplicateAcks(platform, count))

    # ------------------------------------------------------------------ settling

    def _go_on(self, lane: Lane) -> None:
        self._release_key(lane)
        self._settle(lane.entry)

    def _release_key(self, lane: Lane) -> None:
        ready = self._window.finish(lane)
        if ready:
            self._relay.submit(ready)
        if lane.failed and self._window.left:
            self._relay.rescan()

    def remove_settled(self, record: StoredRecord, plan: Plan) -> None:
        """The record was read settled: it has only to be removed."""
        saving = self._saving.get(record.sk)
        if saving is not None and saving.writes:
            # Settled by a dead letter that is not stored yet: the record must outlive it.
            return
        if record.event is not None and record.sk not in self._window.entries:
            self._remove(Entry(record, record.event, plan))

    def _settle(self, entry: Entry) -> None:
        if is_settled(entry.plan, entry.states):
            if not entry.writes:
                self._remove(entry)
        elif not entry.lanes or any(lane.failed for lane in entry.lanes):
            entry.dirty = True
            self._write_down(entry)

    def _remove(self, entry: Entry) -> None:
        record = entry.record
        entry.obsolete = True
        self._relay.settled(record.sk)
        self._doomed.append(record.sk)
        self._added.append(record.added if _DELIVERED in entry.states.values() else None)
        if not self._is_removing:
            self._is_removing = True
            self._shared.settler.remove(self._relay.partition, self)

    @property
    def unwritten(self) -> int:
        """Records of which something is still to be written or removed."""
        return len(self._added) + self._writes

    def take_doomed(self) -> Sequence[str]:
        """What the settler has to remove now."""
        sks, self._doomed = self._doomed, []
        self._is_removing = bool(sks)
        return sks

    def removed(self, sks: Sequence[str]) -> None:
        """The settler has removed these, in the order in which they were settled."""
        added, self._added = self._added[: len(sks)], self._added[len(sks) :]
        # What was purged, or ends as dead letters only, was not delivered.
        delivered = [then for then in added if then is not None]
        self._shared.totals.delivered += len(delivered)
        if self._shared.hooks and delivered:
            now = self._shared.wall_ms()
            self._shared.hooks(Relayed(len(delivered), [max(0, now - then) / 1000 for then in delivered]))
        self._relay.removed(sks)

    def _write_down(self, entry: Entry) -> None:
        """Records the plan and what was settled of it, once."""
        if not entry.dirty or entry.obsolete:
            return
        entry.dirty = False
        entry.writes += 1
        self._writes += 1
        record = entry.record
        self._saving[record.sk] = entry
        state = RecordState(
            plan=entry.plan,
            states={name: state for name, state in entry.states.items() if state in _REPORTED},
            attempts=_attempts_of(entry),
            tried_for=max((lane.tried_for for lane in entry.lanes), default=record.state.tried_for),
            generation=record.state.generation,
            last_error=entry.last_error,
        )
        store, partition = self._shared.store, self._relay.partition
        self._shared.settler.write(
            lambda: store.update(partition, record.sk, state), partial(self._written, entry)
        )

    def _written(self, entry: Entry, state: RecordState | None) -> None:
        self._wrote(entry)
        if state is None or (state.plan is not None and state.plan != entry.plan):
            # Gone, requeued, or with a plan that another process recorded before: what is there now holds.
            self._give_up(entry)
            return
        self._settle_if_done(entry)

    def _wrote(self, entry: Entry) -> None:
        entry.writes -= 1
        self._writes -= 1
        self._relay.moved()

    def _settle_if_done(self, entry: Entry) -> None:
        if not entry.writes and not entry.obsolete and is_settled(entry.plan, entry.states):
            self._remove(entry)

    def _give_up(self, entry: Entry) -> None:
        entry.obsolete = True
        for lane in list(entry.lanes):
            if not lane.in_flight:
                self.were_left(self._window.leave(lane))
        self._relay.rescan()

    # ------------------------------------------------------------------ dead letters

    def _bury(self, lane: Lane, code: str, reason: str, results: Mapping[str, PublishResult]) -> None:
        shared, entry, record = self._shared, lane.entry, lane.entry.record
        platforms = entry.plan.platforms if entry.plan.first_that_works else lane.platforms
        hold = shared.config.after_dead_letter == "hold" and record.key is not None
        state = PlatformState.HELD if hold else PlatformState.DEAD
        entry.states.update(dict.fromkeys(platforms, state))
        letter = DeadLetter(
            platform=platforms[0], platforms=tuple(platforms), key=record.key, event=entry.event, reason=reason,
            code=code, attempts=max(1, lane.attempts), added=record.added, failed=shared.wall_ms(),
            origin=self._relay.partition, origin_sk=record.sk, plan=entry.plan, held=hold,
            history=(*record.history, _history(code, results)),
        )  # fmt: skip
        # Each letter goes with its own state: those of other letters on their way may come later, or not at all.
        is_last = is_settled(entry.plan, entry.states) and not entry.writes
        own = {name: kept for name, kept in entry.states.items() if kept in _REPORTED or name in platforms}
        new_state = None if is_last else RecordState(
            entry.plan, own, _attempts_of(entry), lane.tried_for, record.state.generation
        )  # fmt: skip
        entry.dirty = False
        entry.writes += 1
        self._writes += 1
        self._saving[record.sk] = entry
        if is_last:
            self._relay.settled(record.sk)
        shared.settler.write(
            lambda: shared.store.bury(letter, new_state),
            partial(self._buried, entry, letter, is_last=is_last),
        )
        if hold:
            self.were_left(self._window.leave(lane))
        else:
            self._go_on(lane)

    def _buried(self, entry: Entry, letter: DeadLetter, stored: bool, *, is_last: bool) -> None:
        self._wrote(entry)
        self._report(letter, stored=stored)
        if is_last:
            entry.obsolete = True
            self._relay.removed((entry.record.sk,))
        elif stored:
            self._settle_if_done(entry)
        else:
            self._give_up(entry)

    def bury_whole(self, letter: DeadLetter) -> None:
        """Makes a dead letter of a record that no platform can be given."""
        self._relay.settled(letter.origin_sk)
        store = self._shared.store

        def buried(stored: bool) -> None:
            self._report(letter, stored=stored)
            self._relay.removed((letter.origin_sk,))

        self._shared.settler.write(lambda: store.bury(letter, None), buried)

    def _report(self, letter: DeadLetter, *, stored: bool) -> None:
        if not stored:
            return
        self._shared.totals.dead_lettered += 1
        event = letter.event
        self._shared.hooks(
            DeadLettered(
                letter.platform,
                None if event is None else event.type,
                None if event is None else event.id,
                letter.code,
                letter.reason,
            )
        )


def _was_tried(result: PublishResult) -> bool:
    is_throttled = isinstance(result.error, PublishError) and result.error.throttled
    return result.attempts > 0 and not is_throttled


def _attempts_of(entry: Entry) -> int:
    return max((lane.attempts for lane in entry.lanes), default=entry.record.state.attempts)


def _history(code: str, results: Mapping[str, PublishResult]) -> Mapping[str, str]:
    """What a dead letter keeps of its last attempt; no data of the event."""
    texts = {name: f"{result.outcome}: {result.error}"[:300] for name, result in results.items()}
    return {"code": code, **texts}
