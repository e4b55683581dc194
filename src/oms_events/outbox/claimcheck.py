"""The claim check: the data of large events goes to S3, and the event carries a `dataref` to it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson
from cloudevents.core.v1.event import CloudEvent

from oms_events._aws.config import AwsConfig
from oms_events.errors import (
    InvalidEventError,
    MissingExtraError,
    PlatformDeniedError,
    PublishError,
    StorageDeniedError,
    StorageError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.events import EncodedEvent, event_from_attributes, load_json, read_payload
from oms_events.outbox.config import ClaimCheckConfig

if TYPE_CHECKING:
    from types import ModuleType

    import aioboto3

    from oms_events._aws.session import AwsClient

_KIND: Final = "datakind"
_CONNECTIONS: Final = 8
_CONTENT_TYPES: Final = {"json": "application/json", "text": "text/plain; charset=utf-8"}


class ClaimCheck:
    """Puts event data to S3. An object's name follows from the event's identity and data: twice is as once."""

    def __init__(
        self,
        config: ClaimCheckConfig,
        aws: AwsConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
    ) -> None:
        self._config = config
        self._aws = aws.model_copy(update={"endpoint_url": config.endpoint_url})
        self._session = session
        self._borrowed = client
        self._client: AwsClient | None = None

    async def open(self) -> None:
        """Makes the client; idempotent. Raises `ConfigurationError`, `MissingExtraError` or a `StorageError`."""
        if self._client is not None:
            return
        # Importing botocore takes most of a second.
        aws = await asyncio.to_thread(_load_aws)
        try:
            self._client = await aws.open_client(
                self._aws,
                "s3",
                connections=_CONNECTIONS,
                direct=False,
                session=self._session,
                client=self._borrowed,
            )
        except PublishError as error:
            raise _storage_error("S3 cannot be used", error) from error.__cause__

    async def close(self) -> None:
        """Closes what was opened here."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def takes(self, event: EncodedEvent) -> bool:
        """Whether an event's data is to be put to S3."""
        return event.size > self._config.threshold and bool(event.payload)

    def stored_form(self, event: EncodedEvent) -> EncodedEvent:
        """An event of exactly the size of what `put` gives."""
        return _referring(event, self._reference("0" * hashlib.sha256().digest_size * 2))

    async def put(self, event: EncodedEvent) -> EncodedEvent:
        """Puts the event's data to S3, and gives the event that refers to it. Raises a `StorageError`."""
        if self._client is None:
            raise StorageUnavailableError("the claim check is not open: open the outbox")
        digest = hashlib.sha256(event.identity.encode() + b"\n" + event.payload).hexdigest()
        reference = self._reference(digest)
        request = {
            "Bucket": self._config.bucket,
            "Key": f"{self._config.prefix}{digest}",
            "Body": event.payload,
            "ContentType": event.attributes.get("datacontenttype")
            or _CONTENT_TYPES.get(event.kind, "application/octet-stream"),
            "Metadata": {_KIND: event.kind},
        }
        try:
            await self._client.call("PutObject", request)
        except PublishError as error:
            text = f"the data of event {event.identity} cannot be put to {reference}"
            raise _storage_error(text, error) from error.__cause__
        return _referring(event, reference)

    def _reference(self, digest: str) -> str:
        return f"s3://{self._config.bucket}/{self._config.prefix}{digest}"


async def resolve_dataref(event: CloudEvent, client: Any, *, bucket: str) -> CloudEvent:
    """The event with the data that its `dataref` refers to, for consumers; one without `dataref` as it is.

    `client` is an aioboto3 S3 client. Only objects of `bucket` are read: who can send you an event must not
    choose what you read. Raises `InvalidEventError` for another reference, `StorageRejectedError` when
    the object is gone, `StorageDeniedError` or `StorageUnavailableError`.
    """
    attributes = dict(event.get_attributes())
    reference = attributes.pop("dataref", None)
    if reference is None or event.get_data() is not None:
        return event
    prefix = f"s3://{bucket}/"
    if not isinstance(reference, str) or not reference.startswith(prefix) or reference == prefix:
        text = f"attribute 'dataref' = {reference!r} is no object of {prefix}; give your producers' bucket"
        raise InvalidEventError(text, field="dataref")
    payload, kind = await _get(client, bucket, reference.removeprefix(prefix))
    return event_from_attributes(attributes, _data(payload, kind, attributes.get("datacontenttype")))


async def _get(client: Any, bucket: str, key: str) -> tuple[bytes, str | None]:
    errors = await asyncio.to_thread(_load_errors)
    try:
        answer: Mapping[str, Any] = await client.get_object(Bucket=bucket, Key=key)
        async with answer["Body"] as body:
            return await body.read(), answer.get("Metadata", {}).get(_KIND)
    except Exception as error:
        failure: PublishError = errors.publish_error(error, operation="GetObject", sent=False)
        text = f"s3://{bucket}/{key} cannot be read"
        if failure.code == "NoSuchKey":
            text = f"{text}; was it removed by a lifecycle rule that is shorter than your consumers are late?"
            raise StorageRejectedError(f"{text} {failure}", code=failure.code) from error
        raise _storage_error(text, failure) from error


def _data(payload: bytes, kind: str | None, content_type: str | None) -> Any:
    if kind == "binary":
        return payload
    if kind == "text":
        return payload.decode()
    if kind == "json":
        return load_json(payload)
    return read_payload(payload, content_type)


def _referring(event: EncodedEvent, reference: str) -> EncodedEvent:
    attributes = {**event.attributes, "dataref": reference}
    head = orjson.dumps(attributes, option=orjson.OPT_UTC_Z)
    return EncodedEvent(None, attributes, head, b"", "json")


def _storage_error(text: str, error: PublishError) -> StorageError:
    kind = StorageDeniedError if isinstance(error, PlatformDeniedError) else StorageUnavailableError
    return kind(f"{text}: {error}", code=error.code, retry_after=error.retry_after)


def _load_aws() -> ModuleType:
    try:
        from oms_events._aws import session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "oms_events":
            raise
        raise MissingExtraError("aws", needed_for="a claim check") from error
    return session


def _load_errors() -> ModuleType:
    from oms_events._aws import errors

    return errors
