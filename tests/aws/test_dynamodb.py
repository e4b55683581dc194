from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import uuid4

import aioboto3
import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events._aws.marshal import LEVELS, checked_item, from_item, from_value, to_item, to_value
from oms_events.devstack import (
    AwsEmulator,
    Denied,
    Fault,
    FaultProxy,
    Hang,
    LoseAnswer,
    Reset,
    ServerError,
    Throttle,
    free_port,
    run_in_thread,
)
from oms_events.errors import (
    ConditionFailedError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
    TransactionConflictError,
)

SECRET = "hunter2hunter2"
KEYS = {"aws_region": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": SECRET}
TABLE = f"calls-{uuid4().hex[:12]}"
ABSENT = "attribute_not_exists(pk)"


class Color(StrEnum):
    RED = "red"


@asynccontextmanager
async def opened(endpoint: str, *, direct: bool = True, **settings: Any) -> AsyncIterator[DynamoClient]:
    config = AwsConfig(**KEYS, endpoint_url=endpoint, **settings)
    dynamo = await open_dynamo(config, connections=4, direct=direct)
    try:
        # The first call is always an ordinary one.
        await dynamo.call("DescribeTable", {"TableName": TABLE}, table=TABLE)
        assert dynamo.direct is direct
        yield dynamo
    finally:
        await dynamo.close()


def key(sk: str) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": sk}}


def put(sk: str, **parameters: Any) -> dict[str, Any]:
    return {"TableName": TABLE, "Item": key(sk), **parameters}


async def is_there(dynamo: DynamoClient, sk: str) -> bool:
    answer = await dynamo.call(
        "GetItem", {"TableName": TABLE, "Key": key(sk), "ConsistentRead": True}, table=TABLE
    )
    return "Item" in answer


@pytest.fixture(scope="module")
async def endpoint(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """An endpoint with the table."""
    endpoint = os.environ.get("OMS_TEST_AWS_ENDPOINT")
    if endpoint is None:
        emulator: AwsEmulator = request.getfixturevalue("oms_aws_emulator")
        endpoint = emulator.endpoint_url
    dynamo = await open_dynamo(AwsConfig(**KEYS, endpoint_url=endpoint), connections=1)
    names = {"pk": "HASH", "sk": "RANGE"}
    shape = {
        "TableName": TABLE,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in names.items()],
    }
    await dynamo.call("CreateTable", shape, table=TABLE)
    yield endpoint
    await dynamo.call("DeleteTable", {"TableName": TABLE}, table=TABLE)
    await dynamo.close()


@pytest.fixture(scope="module")
def shared_proxy(endpoint: str) -> Any:
    with run_in_thread(FaultProxy(endpoint)) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy: FaultProxy) -> Any:
    yield shared_proxy
    shared_proxy.clear()
    shared_proxy.release()
    shared_proxy.forget_calls()


@pytest.fixture(params=[True, False], ids=["direct", "ordinary"], scope="module")
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
async def shared_dynamo(shared_proxy: FaultProxy, direct: bool) -> AsyncIterator[DynamoClient]:
    async with opened(shared_proxy.endpoint_url, direct=direct) as dynamo:
        yield dynamo


@pytest.fixture
def dynamo(proxy: FaultProxy, shared_dynamo: DynamoClient) -> DynamoClient:
    return shared_dynamo


# ---------------------------------------------------------------------- values


def test_every_kind_of_value_has_its_type() -> None:
    values = {
        "text": "ü",
        "enum": Color.RED,
        "whole": -7,
        "exact": Decimal("1.10"),
        "float": 0.1,
        "tiny": 1e-7,
        "yes": True,
        "nothing": None,
        "bytes": bytearray(b"\x00\xff"),
        "list": [1, ("a", None)],
        "map": {"deep": {"deeper": 1}},
        "texts": {"b", "a"},
        "numbers": frozenset({2, 1.5}),
        "binaries": {b"x"},
    }
    assert to_item(values) == {
        "text": {"S": "ü"},
        "enum": {"S": "red"},
        "whole": {"N": "-7"},
        "exact": {"N": "1.10"},
        "float": {"N": "0.1"},
        "tiny": {"N": "1E-7"},
        "yes": {"BOOL": True},
        "nothing": {"NULL": True},
        "bytes": {"B": b"\x00\xff"},
        "list": {"L": [{"N": "1"}, {"L": [{"S": "a"}, {"NULL": True}]}]},
        "map": {"M": {"deep": {"M": {"deeper": {"N": "1"}}}}},
        "texts": {"SS": ["a", "b"]},
        "numbers": {"NS": ["1.5", "2"]},
        "binaries": {"BS": [b"x"]},
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": object()}]}, r"item\.a\[1\]\.b: DynamoDB has no type for object"),
        ({"a": float("nan")}, r"item\.a = nan: .*finite"),
        ({"a": [Decimal("-Infinity")]}, r"item\.a\[0\] = Decimal\('-Infinity'\): .*finite"),
        ({"a": {}.keys()}, r"item\.a: a DynamoDB set has at least one member"),
        ({"a": {1, "x"}}, r"item\.a: a DynamoDB set"),
        ({"a": {True}}, r"item\.a: a DynamoDB set"),
        ({"a": {1: 2}}, r"item\.a has the key 1"),
        ({"a": 10**40 + 1}, r"item\.a = 1000.*38 digits"),
        ({"a": 1e200}, r"item\.a = 1e\+200: .*1E\+125"),
        ({"a": Decimal("1E-131")}, r"item\.a = .*1E-130"),
        ({"a": 10**5000}, r"item\.a = \(int, too long to show\): .*38 digits"),
        ({"a": ["\ud800"]}, r"item\.a\[0\] has a lone surrogate"),
        ({"a": {"\ud800": 1}}, r"item\.a: the name '\\ud800' has a lone surrogate"),
        ({"a": {"b", "\ud800"}}, r"item\.a has a lone surrogate"),
    ],
)
def test_what_dynamodb_cannot_hold_is_refused_by_its_path(value: Any, message: str) -> None:
    with pytest.raises(StorageRejectedError, match=message):
        to_item(value)


def _nested(levels: int, inside: Any) -> Any:
    for level in range(levels):
        inside = {"in": inside} if level % 2 else [inside]
    return inside


def test_32_levels_of_maps_and_lists_are_taken_and_no_more() -> None:
    fitting = to_item({"a": _nested(LEVELS, 1)})
    assert checked_item(fitting) == fitting
    cycle: list[Any] = []
    cycle.append(cycle)
    for value in (_nested(LEVELS + 1, 1), cycle):
        with pytest.raises(StorageRejectedError, match=r"item\.a(\.in|\[0\])+: more than 32 maps and lists"):
            to_item({"a": value})
    with pytest.raises(StorageRejectedError, match="more than 32 maps and lists"):
        checked_item({"a": {"L": [fitting["a"]]}})


def test_numbers_that_are_equal_for_dynamodb_are_in_a_set_once() -> None:
    (number,) = to_value({0.1, Decimal("0.1"), Decimal("0.10")})["NS"]
    assert Decimal(number) == Decimal("0.1")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (5, "item = 5: give a mapping"),
        ({"a": "x"}, r"item\.a = 'x': give a value with its type"),
        ({"a": {}}, r"item\.a = {}: give a value with its type"),
        ({"a": {"S": "x", "N": "1"}}, r"item\.a = .*: give a value with its type"),
        ({"a": {"S": 1}}, r"item\.a = 1: give text"),
        ({"a": {"S": "\ud800"}}, r"item\.a has a lone surrogate"),
        ({"a": {"N": 1}}, r"item\.a = 1: give text"),
        ({"a": {"N": "one"}}, r"item\.a = 'one': give a number"),
        ({"a": {"N": "NaN"}}, r"item\.a = .*finite"),
        ({"a": {"B": "eA=="}}, r"item\.a = 'eA==': give bytes"),
        ({"a": {"BOOL": 1}}, r"item\.a = .*no such value of the type 'BOOL'"),
        ({"a": {"NULL": False}}, r"item\.a = .*no such value of the type 'NULL'"),
        ({"a": {"M": {"b": {"L": [{"X": 1}]}}}}, r"item\.a\.b\[0\] = .*no such value of the type 'X'"),
        ({"a": {"SS": []}}, r"item\.a = .*no such value of the type 'SS'"),
        ({"a": {"NS": ["1", "x"]}}, r"item\.a = 'x': give a number"),
        ({1: {"S": "x"}}, "item has the key 1"),
    ],
)
def test_a_typed_item_that_is_none_is_refused_by_its_path(item: Any, message: str) -> None:
    with pytest.raises(StorageRejectedError, match=message):
        checked_item(item)


def test_a_typed_item_is_taken_as_it_is_but_copied() -> None:
    item = {
        "text": {"S": "ü"}, "number": {"N": "1.50"}, "bytes": {"B": b"\x00"}, "yes": {"BOOL": True},
        "nothing": {"NULL": True}, "map": {"M": {"list": {"L": [{"SS": ["a", "b"]}, {"NS": ["1", "2.0"]}]}}},
        "binaries": {"BS": [b"x"]},
    }  # fmt: skip
    checked = checked_item(item)
    assert checked == item
    item["map"]["M"].clear()  # type: ignore[attr-defined]
    assert checked["map"]["M"]


@pytest.mark.parametrize("number", [10**37 * 9, 10**45, 1e125, 1e-130, 0.0, Decimal("0E-500"), Decimal("-1E+125")])
def test_numbers_up_to_the_limits_are_taken(number: Any) -> None:
    assert Decimal(to_value(number)["N"]) == Decimal(repr(number) if isinstance(number, float) else number)


def test_binary_values_are_read_in_both_forms() -> None:
    assert from_value({"B": "AP8="}) == from_value({"B": b"\x00\xff"}) == b"\x00\xff"
    assert from_value({"BS": ["AP8="]}) == frozenset({b"\x00\xff"})
    with pytest.raises(ValueError, match="base64"):
        from_value({"B": "ü"})
    with pytest.raises(ValueError, match="'X' is no type"):
        from_value({"X": "1"})


async def test_values_come_back_from_a_table(dynamo: DynamoClient) -> None:
    values = {
        "pk": "p", "sk": "values", "whole": 7, "part": Decimal("1.5"), "big": 10**37, "bytes": b"\x00\xff",
        "list": [None, True, {"set": frozenset({b"x", b"y"})}], "texts": frozenset({"ü"}), "empty": "",
        "numbers": frozenset({1, Decimal("0.25")}),
    }  # fmt: skip
    await dynamo.call("PutItem", {"TableName": TABLE, "Item": to_item(values)}, table=TABLE)
    answer = await dynamo.call("GetItem", {"TableName": TABLE, "Key": key("values")}, table=TABLE)
    assert from_item(answer["Item"]) == values


# ---------------------------------------------------------------------- what failures mean


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Throttle(), StorageUnavailableError, "ThrottlingException"),
        (Throttle("ProvisionedThroughputExceededException"), StorageUnavailableError, "Provisioned"),
        (Throttle("RequestLimitExceeded"), StorageUnavailableError, "RequestLimitExceeded"),
        (Throttle("TransactionConflictException"), StorageUnavailableError, "TransactionConflictException"),
        (Throttle("TransactionInProgressException"), StorageOutcomeUnknownError, "TransactionInProgress"),
        (ServerError(500, "InternalServerError"), StorageOutcomeUnknownError, "InternalServerError"),
        (ServerError(503, "ServiceUnavailable"), StorageOutcomeUnknownError, "ServiceUnavailable"),
        (Denied(), StorageDeniedError, "AccessDeniedException"),
        (Denied("ExpiredTokenException"), StorageDeniedError, "ExpiredTokenException"),
        (Denied("ValidationException"), StorageRejectedError, "ValidationException"),
        (Denied("IdempotentParameterMismatchException"), StorageRejectedError, "Idempotent"),
        (Reset(), StorageOutcomeUnknownError, ""),
        (Reset(orderly=True), StorageOutcomeUnknownError, ""),
        (LoseAnswer(), StorageOutcomeUnknownError, ""),
    ],
)
async def test_a_failed_write_is_what_its_answer_says(
    dynamo: DynamoClient, proxy: FaultProxy, fault: Fault, kind: type[StorageError], code: str
) -> None:
    proxy.script(fault)
    with pytest.raises(kind, match=f"PutItem on table '{TABLE}'") as caught:
        await dynamo.call("PutItem", put("faulty"), table=TABLE)
    assert type(caught.value) is kind
    assert caught.value.code.startswith(code)
    assert len(proxy.calls_of("PutItem")) == 1


@pytest.mark.parametrize("fault", [ServerError(), Reset(), LoseAnswer()])
async def test_a_failed_read_is_never_unknown(dynamo: DynamoClient, proxy: FaultProxy, fault: Fault) -> None:
    proxy.script(fault)
    with pytest.raises(StorageUnavailableError):
        await is_there(dynamo, "any")


async def test_a_call_ends_within_the_timeouts_and_may_have_been_done(proxy: FaultProxy, direct: bool) -> None:
    limits = {"connect_timeout": 1.0, "read_timeout": 0.3}
    async with opened(proxy.endpoint_url, direct=direct, **limits) as dynamo:
        proxy.script(Hang(), Hang())
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(StorageOutcomeUnknownError):
            await dynamo.call("PutItem", put("hanging"), table=TABLE)
        with pytest.raises(StorageUnavailableError):
            await is_there(dynamo, "hanging")
        assert loop.time() - started < 5


async def test_what_is_cancelled_inside_does_not_look_as_if_the_caller_had_to_end(endpoint: str) -> None:
    async with _session().client("dynamodb", region_name="us-east-1", endpoint_url=endpoint) as client:
        dynamo = await open_dynamo(AwsConfig(), connections=1, client=client)
        waits = asyncio.Event()

        async def look_up(**_: Any) -> None:
            waits.set()
            await lookup

        client.meta.events.register("before-send", look_up)
        lookup = asyncio.get_running_loop().create_future()
        lookup.cancel()
        with pytest.raises(StorageOutcomeUnknownError, match="what waited for the answer was cancelled"):
            await dynamo.call("PutItem", put("cancelled"), table=TABLE)
        with pytest.raises(StorageUnavailableError, match="what waited for the answer was cancelled"):
            await is_there(dynamo, "cancelled")
        lookup = asyncio.get_running_loop().create_future()
        waits.clear()
        call = asyncio.create_task(is_there(dynamo, "cancelled"))
        await waits.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_waiting_for_a_connection_counts_and_is_not_sent(proxy: FaultProxy) -> None:
    config = AwsConfig(**KEYS, endpoint_url=proxy.endpoint_url, connect_timeout=0.1, read_timeout=0.3)
    dynamo = await open_dynamo(config, connections=1)
    try:
        proxy.always(Hang(), operation="PutItem")
        calls = [dynamo.call("PutItem", put(f"waiting-{number}"), table=TABLE) for number in range(4)]
        async with asyncio.timeout(10):
            failures = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        proxy.release()
        await dynamo.close()
    kinds = [type(failure) for failure in failures]
    assert set(kinds) == {StorageOutcomeUnknownError, StorageUnavailableError}
    assert kinds.count(StorageOutcomeUnknownError) == len(proxy.calls_of("PutItem"))


async def test_nobody_there_is_not_sent(direct: bool) -> None:
    config = AwsConfig(**KEYS, endpoint_url=f"http://127.0.0.1:{free_port()}")
    dynamo = await open_dynamo(config, connections=1, direct=direct)
    try:
        with pytest.raises(StorageUnavailableError, match="not sent"):
            await dynamo.call("PutItem", put("nobody"), table=TABLE)
    finally:
        await dynamo.close()


async def test_a_failed_condition_shows_the_item_to_those_who_ask(dynamo: DynamoClient) -> None:
    await dynamo.call("PutItem", put("there"), table=TABLE)
    again = put("there", ConditionExpression=ABSENT, ReturnValuesOnConditionCheckFailure="ALL_OLD")
    with pytest.raises(ConditionFailedError) as caught:
        await dynamo.call("PutItem", again, table=TABLE)
    assert caught.value.reasons == ("ConditionalCheckFailed",)
    assert caught.value.code == "ConditionalCheckFailedException"
    assert caught.value.__cause__.response["Item"] == key("there")  # type: ignore[union-attr]


async def test_a_canceled_transaction_gives_a_reason_per_action(dynamo: DynamoClient) -> None:
    await dynamo.call("PutItem", put("there"), table=TABLE)
    actions = [{"Put": put(sk, ConditionExpression=ABSENT)} for sk in ("not-1", "there", "not-2")]
    with pytest.raises(ConditionFailedError) as caught:
        await dynamo.call("TransactWriteItems", {"TransactItems": actions}, table=TABLE)
    assert caught.value.reasons == ("None", "ConditionalCheckFailed", "None")
    assert not await is_there(dynamo, "not-1")


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        ("TransactionConflict, None", TransactionConflictError),
        ("TransactionConflict, ConditionalCheckFailed", ConditionFailedError),
        ("None, ThrottlingError", TransactionCanceledError),
    ],
)
async def test_reasons_that_stand_only_in_the_text_are_read(
    dynamo: DynamoClient, proxy: FaultProxy, reasons: str, kind: type[StorageError]
) -> None:
    text = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{reasons}]"
    proxy.script(Denied("TransactionCanceledException", text))
    with pytest.raises(kind) as caught:
        await dynamo.call("TransactWriteItems", {"TransactItems": [{"Put": put("a")}]}, table=TABLE)
    assert type(caught.value) is kind
    assert list(caught.value.reasons) == reasons.split(", ")  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- what to do about it


async def test_a_missing_table_is_named_with_the_region(dynamo: DynamoClient) -> None:
    with pytest.raises(StorageDeniedError, match="no table 'nowhere' in region 'us-east-1': create it") as caught:
        await dynamo.call("GetItem", {"TableName": "nowhere", "Key": key("a")}, table="nowhere")
    assert caught.value.code == "ResourceNotFoundException"
    actions = [{"Put": put("a")}, {"Put": {"TableName": "elsewhere", "Item": key("a")}}]
    both = f"tables '{TABLE}', 'elsewhere'"
    message = (
        f"TransactWriteItems on {both}: .*; one of the {both} does not exist in region 'us-east-1': create it"
    )
    with pytest.raises(StorageDeniedError, match=message):
        await dynamo.call("TransactWriteItems", {"TransactItems": actions}, table=TABLE)


async def test_the_region_that_is_named_is_the_one_of_a_borrowed_client(endpoint: str) -> None:
    async with _session().client("dynamodb", region_name="eu-west-3", endpoint_url=endpoint) as client:
        dynamo = await open_dynamo(AwsConfig(), connections=1, client=client)
        with pytest.raises(StorageDeniedError, match="no table 'nowhere' in region 'eu-west-3'"):
            await dynamo.call("GetItem", {"TableName": "nowhere", "Key": key("a")}, table="nowhere")


async def test_a_missing_permission_is_named(dynamo: DynamoClient, proxy: FaultProxy) -> None:
    proxy.script(Denied(), Denied())
    with pytest.raises(StorageDeniedError, match=f"allow dynamodb:UpdateItem on table '{TABLE}'"):
        await dynamo.call("UpdateItem", {"TableName": TABLE, "Key": key("a")}, table=TABLE)
    actions = [
        {"Put": put("a")},
        {"ConditionCheck": {"TableName": TABLE, "Key": key("b"), "ConditionExpression": ABSENT}},
    ]
    with pytest.raises(StorageDeniedError, match="allow dynamodb:ConditionCheckItem, dynamodb:PutItem on table"):
        await dynamo.call("TransactWriteItems", {"TransactItems": actions}, table=TABLE)


async def test_a_role_that_cannot_be_assumed_is_not_the_tables_fault(proxy: FaultProxy) -> None:
    role = {"role_arn": "arn:aws:iam::000000000000:role/none", "sts_endpoint_url": proxy.endpoint_url}
    proxy.script(Denied("AccessDenied", status=403), operation="AssumeRole")
    with pytest.raises(StorageDeniedError, match="the role cannot be assumed: check role_arn"):
        async with opened(proxy.endpoint_url, **role):
            pass


async def test_no_secret_is_in_any_error(dynamo: DynamoClient, proxy: FaultProxy) -> None:
    proxy.script(Denied("InvalidSignatureException", f"No.\nx-amz-security-token:{SECRET}"), Reset(), Throttle())
    for _ in range(3):
        with pytest.raises(StorageError) as caught:
            await dynamo.call("PutItem", put("a"), table=TABLE)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


# ---------------------------------------------------------------------- borrowed


def _session() -> aioboto3.Session:
    return aioboto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")


async def test_a_borrowed_client_is_not_closed(endpoint: str) -> None:
    session = _session()
    async with session.client("dynamodb", endpoint_url=endpoint) as client:
        dynamo = await open_dynamo(AwsConfig(), connections=1, client=client)
        await dynamo.call("PutItem", put("borrowed"), table=TABLE)
        await dynamo.close()
        await client.describe_table(TableName=TABLE)
    borrowing = await open_dynamo(AwsConfig(endpoint_url=endpoint), connections=1, session=session)
    try:
        assert await is_there(borrowing, "borrowed")
        assert not borrowing.direct
    finally:
        await borrowing.close()


@pytest.fixture
async def retrying(proxy: FaultProxy) -> AsyncIterator[DynamoClient]:
    """On a borrowed client with its usual retries."""
    async with _session().client("dynamodb", endpoint_url=proxy.endpoint_url) as client:
        yield await open_dynamo(AwsConfig(), connections=1, client=client)


@pytest.mark.parametrize(
    "refusal", [Denied(), Denied("ValidationException"), Throttle("TransactionConflictException")]
)
async def test_a_refusal_after_a_retry_of_a_borrowed_client_is_unknown(
    retrying: DynamoClient, proxy: FaultProxy, refusal: Fault
) -> None:
    sk = f"retried-{uuid4()}"
    proxy.script(LoseAnswer(), refusal)
    with pytest.raises(StorageOutcomeUnknownError, match="the client had sent it before by itself"):
        await retrying.call("PutItem", put(sk), table=TABLE)
    assert len(proxy.calls_of("PutItem")) == 2
    assert await is_there(retrying, sk)


async def test_a_refusal_without_a_retry_of_a_borrowed_client_is_believed(
    retrying: DynamoClient, proxy: FaultProxy
) -> None:
    proxy.script(Denied())
    with pytest.raises(StorageDeniedError):
        await retrying.call("PutItem", put("refused"), table=TABLE)


async def test_a_condition_that_failed_after_a_retry_may_have_failed_by_the_first_try(
    retrying: DynamoClient, proxy: FaultProxy
) -> None:
    proxy.script(LoseAnswer())
    with pytest.raises(StorageOutcomeUnknownError):
        await retrying.call("PutItem", put(f"own-{uuid4()}", ConditionExpression=ABSENT), table=TABLE)


async def test_a_condition_of_a_transaction_with_a_token_is_believed_after_a_retry(
    retrying: DynamoClient, proxy: FaultProxy
) -> None:
    sk = f"token-{uuid4()}"
    parameters = {"TransactItems": [{"Put": put(sk, ConditionExpression=ABSENT)}]}
    proxy.script(LoseAnswer())
    await retrying.call("TransactWriteItems", {**parameters, "ClientRequestToken": f"1-{sk[-20:]}"}, table=TABLE)
    assert len(proxy.calls_of("TransactWriteItems")) == 2
    proxy.script(Reset())
    with pytest.raises(ConditionFailedError):
        await retrying.call(
            "TransactWriteItems", {**parameters, "ClientRequestToken": f"2-{sk[-20:]}"}, table=TABLE
        )
    assert len(proxy.calls_of("TransactWriteItems")) == 4


async def test_a_read_that_a_borrowed_client_retried_is_not_unknown(
    retrying: DynamoClient, proxy: FaultProxy
) -> None:
    proxy.script(Reset(), Denied("TransactionCanceledException", "reasons [TransactionConflict]"))
    get = {"Get": {"TableName": TABLE, "Key": key("any")}}
    with pytest.raises(TransactionConflictError):
        await retrying.call("TransactGetItems", {"TransactItems": [get]}, table=TABLE)
    proxy.script(Reset(), Throttle("TransactionConflictException"))
    with pytest.raises(StorageUnavailableError):
        await is_there(retrying, "any")


# ---------------------------------------------------------------------- what cannot be sent


async def test_what_has_no_json_form_is_rejected_and_not_sent(
    dynamo: DynamoClient, retrying: DynamoClient, proxy: FaultProxy
) -> None:
    proxy.forget_calls()
    for one in (dynamo, retrying):
        for value in ("\ud800", object()):
            item = {**key("a"), "x": {"S": value}}
            with pytest.raises(StorageRejectedError, match="not sent, the request of PutItem has no JSON form"):
                await one.call("PutItem", {"TableName": TABLE, "Item": item}, table=TABLE)
    assert not proxy.calls
