from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aioboto3
import pytest

from oms_events import build_event, parse_event
from oms_events.devstack import AwsEmulator, Denied, FaultProxy, ServerError, run_in_thread
from oms_events.errors import (
    InvalidEventError,
    OutboxLimitError,
    StorageDeniedError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.outbox.claimcheck import ClaimCheck, resolve_dataref
from oms_events.outbox.config import ClaimCheckConfig, OutboxConfig, WriterConfig
from oms_events.outbox.outbox import Outbox
from tests.outbox.writing import FaultyStore, event, longest, numbers_of, records_of

_LARGE = {"text": "x" * 500_000}


@pytest.fixture(scope="module")
def access(request: pytest.FixtureRequest) -> dict[str, Any]:
    endpoint = os.environ.get("OMS_TEST_AWS_ENDPOINT")
    if endpoint is not None:
        return {"endpoint_url": endpoint}
    emulator: AwsEmulator = request.getfixturevalue("oms_aws_emulator")
    return {
        "endpoint_url": emulator.endpoint_url,
        "aws_region": emulator.region,
        "aws_access_key_id": emulator.access_key,
        "aws_secret_access_key": emulator.secret_key,
    }


@pytest.fixture(scope="module")
async def s3(access: dict[str, Any]) -> AsyncIterator[Any]:
    options = {name.replace("aws_region", "region_name"): value for name, value in access.items()}
    async with aioboto3.Session().client("s3", **options) as client:
        yield client


@pytest.fixture
async def bucket(s3: Any) -> str:
    name = f"claims-{uuid.uuid4().hex[:12]}"
    await s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(access: dict[str, Any]) -> Iterator[FaultProxy]:
    with run_in_thread(FaultProxy(access["endpoint_url"])) as proxy:
        yield proxy


def _claim_check(
    bucket: str, access: dict[str, Any], *, endpoint_url: str | None = None, **fields: Any
) -> ClaimCheck:
    endpoint_url = endpoint_url or access["endpoint_url"]
    config = ClaimCheckConfig(bucket=bucket, endpoint_url=endpoint_url, **{"threshold": 1000, **fields})
    return ClaimCheck(config, OutboxConfig(table_name="outbox", **{**access, "endpoint_url": None}))


@pytest.fixture
async def outbox(bucket: str, access: dict[str, Any]) -> AsyncIterator[Outbox]:
    async with Outbox(FaultyStore(), WriterConfig(), claim_check=_claim_check(bucket, access)) as outbox:
        yield outbox


async def _keys(s3: Any, bucket: str) -> list[str]:
    answer = await s3.list_objects_v2(Bucket=bucket)
    return [entry["Key"] for entry in answer.get("Contents", [])]


async def test_a_large_events_data_goes_to_s3_and_the_record_refers_to_it(
    outbox: Outbox, s3: Any, bucket: str
) -> None:
    large = event(data=_LARGE, subject="kept")
    async with outbox.transaction() as tx:
        tx.add(large)
    (record,) = await records_of(outbox)
    assert record.event is not None
    (key,) = await _keys(s3, bucket)
    assert key.startswith("outbox/")
    assert record.event.attributes["dataref"] == f"s3://{bucket}/{key}"
    assert (record.event.payload, record.event.data) == (b"", None)
    assert (record.event.id, record.event.attributes["subject"]) == (large.get_id(), "kept")
    assert record.key == "order-1"


async def test_a_small_event_stays_as_it_is(outbox: Outbox, s3: Any, bucket: str) -> None:
    await outbox.add(event(data={"text": "x" * 100}))
    (record,) = await records_of(outbox)
    assert record.event is not None
    assert "dataref" not in record.event.attributes
    assert await _keys(s3, bucket) == []


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (_LARGE, None),
        (_LARGE, "application/json"),
        (["é" * 2000, 2**70, None], "application/vnd.x+json"),
        ("text " * 1000, "text/plain"),
        (b"\x00\xff" * 1000, "application/octet-stream"),
        (b'{"looks": "like json"}' * 100, None),
        (b"%PDF" * 600_000, "application/pdf"),
    ],
)
async def test_a_consumer_gets_the_data_back_as_it_was(
    outbox: Outbox, s3: Any, bucket: str, data: Any, content_type: str | None
) -> None:
    sent = build_event("com.example.report", "/r", data, datacontenttype=content_type, partitionkey="order-1")
    await outbox.add_many([sent])
    (record,) = await records_of(outbox)
    assert record.event is not None
    received = parse_event(record.event.json)
    resolved = await resolve_dataref(received, s3, bucket=bucket)
    assert resolved.get_data() == data
    assert resolved.get_attributes() == sent.get_attributes()


async def test_names_follow_from_identity_and_data(outbox: Outbox, s3: Any, bucket: str) -> None:
    same = event(data=_LARGE)
    await outbox.add(same)
    await outbox.add(same)
    assert len(await _keys(s3, bucket)) == 1
    await outbox.add(event(data=_LARGE))
    await outbox.add(event(data={**_LARGE, "n": 1}, id=same.get_id()))
    assert len(await _keys(s3, bucket)) == 3


async def test_the_data_is_there_before_the_numbers_are_reserved(bucket: str, access: dict[str, Any]) -> None:
    store = FaultyStore()
    missing = _claim_check(f"no-{bucket}", access)
    outbox = Outbox(store, WriterConfig(), claim_check=missing)
    with pytest.raises(StorageDeniedError, match=f"s3://no-{bucket}/outbox/"):
        await outbox.add(event(data=_LARGE))
    assert store.reserved == []
    assert store.commits == []
    await outbox.close()


async def test_prepared_events_are_checked_in_too(outbox: Outbox, s3: Any, bucket: str) -> None:
    prepared = await outbox.prepare([event(data=_LARGE)])
    actions = prepared.actions
    assert len(numbers_of(actions)) == 1
    assert len(await _keys(s3, bucket)) == 1
    await outbox.store.commit(actions, "mine")
    (record,) = await records_of(outbox)
    assert record.event is not None
    assert "dataref" in record.event.attributes


async def test_attributes_that_are_too_large_are_refused_all_the_same(outbox: Outbox) -> None:
    with pytest.raises(OutboxLimitError):
        await outbox.add(event(data=_LARGE, subject="x" * 410_000))
    assert outbox.store.reserved == []  # type: ignore[attr-defined]
    await outbox.add(event(data=_LARGE, subject="x" * 300_000))
    assert len(await records_of(outbox)) == 1


async def test_a_failing_put_is_tried_again(bucket: str, access: dict[str, Any], proxy: FaultProxy) -> None:
    claim_check = _claim_check(bucket, access, endpoint_url=proxy.endpoint_url)
    async with Outbox(FaultyStore(), WriterConfig(), claim_check=claim_check) as outbox:
        proxy.script(ServerError(), ServerError(status=503, code="SlowDown"))
        await outbox.add(event(data=_LARGE))
        assert len(await records_of(outbox)) == 1
        assert len(proxy.calls) == 3


async def test_s3_that_stays_away_leaves_nothing(bucket: str, access: dict[str, Any], proxy: FaultProxy) -> None:
    store = FaultyStore()
    claim_check = _claim_check(bucket, access, endpoint_url=proxy.endpoint_url)
    async with Outbox(store, WriterConfig(conflict_attempts=2), claim_check=claim_check) as outbox:
        proxy.always(ServerError())
        with pytest.raises(StorageUnavailableError, match="nothing was written, after 2 attempts"):
            await outbox.add(event(data=_LARGE))
        assert store.commits == []


async def test_a_denied_put_is_told_at_once(bucket: str, access: dict[str, Any], proxy: FaultProxy) -> None:
    claim_check = _claim_check(bucket, access, endpoint_url=proxy.endpoint_url)
    async with Outbox(FaultyStore(), WriterConfig(), claim_check=claim_check) as outbox:
        proxy.always(Denied(code="AccessDenied", status=403))
        with pytest.raises(StorageDeniedError, match="cannot be put"):
            await outbox.add(event(data=_LARGE))
        assert len(proxy.calls) == 1


async def test_a_key_is_found_in_the_data_that_is_checked_in(bucket: str, access: dict[str, Any]) -> None:
    config = WriterConfig(key_of=lambda found: found.get_data()["order"])
    sizes = {"small": 1, "large": 5000}
    small, large, prepared = (
        event(None, {"order": "7", "text": "x" * sizes[name.partition("-")[0]]}, id=name)
        for name in ("small", "large", "large-prepared")
    )
    async with Outbox(FaultyStore(), config, claim_check=_claim_check(bucket, access)) as outbox:
        await outbox.add(small)
        async with outbox.transaction() as tx:
            tx.add(large)
        await outbox.store.commit((await outbox.prepare([prepared])).actions, "mine")
        found = await records_of(outbox, "7")
    assert [record.event.id for record in found if record.event] == ["small", "large", "large-prepared"]
    assert [record.key for record in found] == ["7"] * 3
    assert len({record.partition for record in found}) == 1
    assert sum("dataref" in record.event.attributes for record in found if record.event) == 2


async def test_what_is_admitted_has_room_for_its_dataref(bucket: str, access: dict[str, Any]) -> None:
    store = FaultyStore()
    prefix = "p" * 500
    async with Outbox(store, WriterConfig(), claim_check=_claim_check(bucket, access, prefix=prefix)) as outbox:
        await outbox.add(await longest(outbox, lambda size: event(data=_LARGE, subject="x" * size)))
        (record,) = await records_of(outbox)
        assert record.event is not None
        assert prefix in record.event.attributes["dataref"]


# ---------------------------------------------------------------------- consumers


@pytest.mark.parametrize(
    "reference", ["s3://other/outbox/x", "s3://{bucket}", "https://{bucket}/x", "s3://{bucket}/"]
)
async def test_a_consumer_reads_only_the_bucket_that_it_names(s3: Any, bucket: str, reference: str) -> None:
    received = event(dataref=reference.format(bucket=bucket))
    with pytest.raises(InvalidEventError, match="dataref") as caught:
        await resolve_dataref(received, s3, bucket=bucket)
    assert caught.value.field == "dataref"


async def test_an_event_that_has_its_data_is_left_alone(s3: Any, bucket: str) -> None:
    plain, both = event(data={"n": 1}), event(data={"n": 1}, dataref=f"s3://{bucket}/x")
    assert await resolve_dataref(plain, s3, bucket=bucket) is plain
    assert await resolve_dataref(both, s3, bucket=bucket) is both


async def test_an_object_that_is_gone_is_told(s3: Any, bucket: str) -> None:
    with pytest.raises(StorageRejectedError, match="lifecycle rule"):
        await resolve_dataref(event(dataref=f"s3://{bucket}/gone"), s3, bucket=bucket)


async def test_an_object_that_others_put_is_read_by_its_content_type(s3: Any, bucket: str) -> None:
    await s3.put_object(Bucket=bucket, Key="theirs", Body=b'{"n": 1}')
    received = event(dataref=f"s3://{bucket}/theirs", datacontenttype="application/json")
    assert (await resolve_dataref(received, s3, bucket=bucket)).get_data() == {"n": 1}
