"""The keys of people in a DynamoDB table of their own."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretBytes

from oms_events._aio import Clock
from oms_events._aws.marshal import from_item, to_item
from oms_events._aws.table import DynamoTable
from oms_events.errors import ConditionFailedError, PersonalDataError, StorageUnavailableError
from oms_events.eventstore.config import PersonalKeysConfig
from oms_events.eventstore.personal.keys import KEY_BYTES, KeyWrapper, RandomBytes, SubjectKey, check_subject
from oms_events.eventstore.schema import PERSONAL_KEYS, SUBJECT

if TYPE_CHECKING:
    import aioboto3

VERSION: Final = "KeyVersion"
KEY: Final = "DataKey"
"""The key, or what the wrapper made of it; gone when the person was forgotten."""
CREATED: Final = "CreatedAt"
FORGOTTEN: Final = "ForgottenAt"

NEW: Final = f"attribute_not_exists({SUBJECT})"
"""Of the first key: of two writers one is refused, and takes the other's. A mark of forgetting refuses both."""
AS_READ: Final = f"{VERSION} = :version AND attribute_not_exists({KEY})"
"""Of the next key: the person is still the one who was forgotten, and nobody has given them a new key."""
OF_VERSION: Final = f"{VERSION} = :version"
"""Of a deletion: one that comes late, after its answer was given up, must not take a newer key with it."""

_BATCH: Final = 100
"""Keys of a BatchGetItem (DynamoDB API reference)."""
_UNWRAPPING: Final = 16
"""Keys that are unwrapped at the same time."""

Item = Mapping[str, Any]


class DynamoDBSubjectKeys(DynamoTable):
    """Keys of people in a DynamoDB table; with a `wrapper`, which KMS may be, they are stored encrypted.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed, nor
    is the wrapper. Opens at the first use, or as `async with`. Needs `dynamodb:BatchGetItem` to read, `GetItem`
    and `PutItem` to write, `GetItem` and `UpdateItem` to forget, and `DescribeTable`. Backups of the table keep
    deleted keys.
    """

    def __init__(
        self,
        config: PersonalKeysConfig,
        *,
        wrapper: KeyWrapper | None = None,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        super().__init__(
            config, config.table_name, PERSONAL_KEYS, session=session, client=client, clock=clock, rng=rng
        )
        self._wrapper = wrapper
        self._random_bytes = random_bytes

    async def get(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        names = list(dict.fromkeys(subjects))
        items: list[Item] = []
        for start in range(0, len(names), _BATCH):
            items += await self._read_batch(names[start : start + _BATCH])
        slots = asyncio.Semaphore(_UNWRAPPING)

        async def key_of(item: Item) -> SubjectKey:
            async with slots:
                return await self._key(item)

        # All have ended before an error goes on.
        keys = await asyncio.gather(*map(key_of, items), return_exceptions=True)
        found: dict[str, SubjectKey] = {}
        for item, key in zip(items, keys, strict=True):
            if isinstance(key, BaseException):
                raise key
            found[item[SUBJECT]] = key
        return found

    async def get_or_create(self, subject: str) -> SubjectKey:
        check_subject(subject)
        while True:
            item = await self._read(subject)
            if item is not None:
                return await self._key(item)
            key = await self._put(subject, 1, NEW, {})
            if key is not None:
                return key

    async def renew(self, subject: str) -> SubjectKey:
        while True:
            key = await self.get_or_create(subject)
            if not key.is_deleted:
                return key
            renewed = await self._put(subject, key.version + 1, AS_READ, {":version": key.version})
            if renewed is not None:
                return renewed

    async def delete(self, subject: str) -> None:
        check_subject(subject)
        while True:
            item = await self._read(subject)
            if item is not None and KEY not in item:
                return
            version = 0 if item is None else item[VERSION]
            condition = NEW if item is None else OF_VERSION
            values = {":version": version, ":now": self._clock.now().isoformat()}
            try:
                await self.repeat(
                    "UpdateItem",
                    TableName=self.name,
                    Key=to_item({SUBJECT: subject}),
                    UpdateExpression=f"SET {VERSION} = :version, {FORGOTTEN} = :now REMOVE {KEY}, {CREATED}",
                    ConditionExpression=condition,
                    ExpressionAttributeValues=to_item(values),
                )
                return
            except ConditionFailedError:
                # Done by an earlier try whose answer was lost, or somebody made a key meanwhile.
                continue

    async def _put(
        self, subject: str, version: int, condition: str, values: Mapping[str, Any]
    ) -> SubjectKey | None:
        """A new key; None when the condition does not hold, which is also so when a lost answer had stored it."""
        secret = self._random_bytes(KEY_BYTES)
        stored = secret if self._wrapper is None else await self._wrapper.wrap(secret, subject=subject)
        item = {SUBJECT: subject, VERSION: version, KEY: stored, CREATED: self._clock.now().isoformat()}
        parameters = {"ExpressionAttributeValues": to_item(values)} if values else {}
        try:
            await self.repeat(
                "PutItem", TableName=self.name, Item=to_item(item), ConditionExpression=condition, **parameters
            )
        except ConditionFailedError:
            return None
        return SubjectKey(version, SecretBytes(secret))

    async def _key(self, item: Item) -> SubjectKey:
        if KEY not in item:
            return SubjectKey(item[VERSION], None)
        secret = item[KEY]
        if self._wrapper is not None:
            secret = await self._wrapper.unwrap(secret, subject=item[SUBJECT])
        return SubjectKey(item[VERSION], SecretBytes(secret))

    async def _read(self, subject: str) -> Item | None:
        answer = await self.repeat(
            "GetItem", TableName=self.name, Key=to_item({SUBJECT: subject}), ConsistentRead=True
        )
        return _read(answer["Item"]) if answer.get("Item") else None

    async def _read_batch(self, subjects: Sequence[str]) -> list[Item]:
        wanted: Any = {
            self.name: {"Keys": [to_item({SUBJECT: name}) for name in subjects], "ConsistentRead": True}
        }
        items: list[Item] = []
        attempt = 0
        while True:
            answer = await self.repeat("BatchGetItem", RequestItems=wanted)
            found = answer.get("Responses", {}).get(self.name, ())
            items += map(_read, found)
            wanted = answer.get("UnprocessedKeys")
            if not wanted:
                return items
            attempt = 1 if found else attempt + 1
            retry = self._config.retry
            if attempt >= retry.max_attempts:
                raise StorageUnavailableError(f"BatchGetItem on table {self.name!r}: DynamoDB leaves keys unread")
            await self._clock.sleep(retry.delay(attempt, self._rng.random))


def _read(item: Item) -> Item:
    try:
        read = from_item(item)
        if isinstance(read[SUBJECT], str) and isinstance(read[VERSION], int):
            return read
    except (KeyError, ValueError):
        pass
    # Nothing of the item: it may hold a key.
    subject = item.get(SUBJECT, {}).get("S")
    raise PersonalDataError(f"what is stored as the key of subject {subject!r} is none", subject=subject)
