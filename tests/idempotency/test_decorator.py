"""Which arguments make the key and the payload, and what the decorated function is."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from oms_events import ConfigurationError, build_event, encode
from oms_events.errors import IdempotencyArgumentError, PayloadMismatchError
from oms_events.idempotency import MemoryIdempotencyStore, idempotent


@pytest.fixture
def store() -> MemoryIdempotencyStore:
    return MemoryIdempotencyStore()


def _event(**rest: Any) -> Any:
    return build_event("shop.order.placed", "/shop", {"order": {"id": "A-1", "lines": [{"sku": "x"}]}}, **rest)


async def test_the_event_among_the_arguments_is_the_key(store: MemoryIdempotencyStore) -> None:
    class Handler:
        runs = 0

        @idempotent(store)
        async def handle(self, context: str, event: object, *, flag: bool = False) -> int:
            self.runs += 1
            return self.runs

    handler, event = Handler(), _event(id="1")
    assert await handler.handle("a", event) == 1
    assert await handler.handle("b", event=encode(event), flag=True) == 1
    assert await handler.handle("b", _event(id="2")) == 2
    with pytest.raises(PayloadMismatchError, match="1@/shop"):
        await handler.handle("a", build_event("shop.order.placed", "/shop", {"order": 2}, id="1"))


@pytest.mark.parametrize("arguments", [(1, 2), (_event(), _event())])
async def test_without_exactly_one_event_a_key_must_be_named(
    store: MemoryIdempotencyStore, arguments: tuple[object, object]
) -> None:
    @idempotent(store)
    async def work(one: object, two: object) -> None:
        pytest.fail("it ran")

    with pytest.raises(IdempotencyArgumentError, match=r"work was called with [02] events; say with key="):
        await work(*arguments)


@dataclass
class Order:
    id: object


@pytest.mark.parametrize(
    ("path", "argument", "other"),
    [
        ("what", "A-1", "A-2"),
        ("what.id", Order("A-1"), Order("A-2")),
        ("what.id", Order(uuid4()), Order(uuid4())),
        ("what.orders.1.id", {"orders": [0, {"id": 5}]}, {"orders": [0, {"id": 6}]}),
        ("what.data.order.id", _event(id="1"), build_event("t", "/s", {"order": {"id": "A-2"}}, id="1")),
        ("what.subject", _event(subject="a"), _event(subject="b")),
        ("what", _event(id="1"), _event(id="2")),
    ],
)
async def test_a_path_leads_to_the_key(
    store: MemoryIdempotencyStore, path: str, argument: object, other: object
) -> None:
    runs = []

    @idempotent(store, key=path)
    async def work(number: int, what: object) -> int:
        runs.append(number)
        return number

    assert [await work(1, argument), await work(2, what=argument), await work(3, other)] == [1, 1, 3]


@pytest.mark.parametrize(
    ("path", "argument"),
    [("what.id", {}), ("what.id", 5), ("what.7", [1]), ("what.subject", _event()), ("what.data.x", _event())],
)
async def test_a_path_that_leads_nowhere_is_named(
    store: MemoryIdempotencyStore, path: str, argument: object
) -> None:
    @idempotent(store, key=path)
    async def work(what: object) -> None:
        pytest.fail("it ran")

    with pytest.raises(IdempotencyArgumentError, match=f"the argument has no '{path}'"):
        await work(argument)


async def test_functions_select_key_and_payload(store: MemoryIdempotencyStore) -> None:
    runs = []

    @idempotent(store, key=lambda tenant, order: f"{tenant}/{order['id']}", payload="order.amount")
    async def charge(tenant: str, order: dict[str, Any]) -> int:
        runs.append(order)
        return len(runs)

    assert await charge("a", {"id": 1, "amount": 5}) == 1
    assert await charge("a", {"id": 1, "amount": 5, "note": "again"}) == 1
    assert await charge("b", {"id": 1, "amount": 5}) == 2
    with pytest.raises(PayloadMismatchError):
        await charge("a", {"id": 1, "amount": 6})


async def test_functions_that_share_a_store_do_not_share_results(store: MemoryIdempotencyStore) -> None:
    @idempotent(store, key="number")
    async def double(number: int) -> int:
        return 2 * number

    @idempotent(store, key="number")
    async def negate(number: int) -> int:
        return -number

    @idempotent(store, key="number", prefix=f"{__name__}.{double.__qualname__}")
    async def renamed(number: int) -> int:
        raise AssertionError

    assert [await double(3), await negate(3), await renamed(3)] == [6, -3, 6]


async def test_a_default_value_can_be_the_key(store: MemoryIdempotencyStore) -> None:
    runs = []

    @idempotent(store, key="region")
    async def work(region: str = "eu") -> None:
        runs.append(region)

    await work()
    await work("eu")
    assert runs == ["eu"]


async def test_it_looks_like_the_function(store: MemoryIdempotencyStore) -> None:
    @idempotent(store, key="number")
    async def double(number: int) -> int:
        """Doubles."""
        return 2 * number

    assert inspect.iscoroutinefunction(double)
    assert double.__doc__ == "Doubles."
    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        await double()  # type: ignore[call-arg]


def test_what_cannot_work_is_told_at_once(store: MemoryIdempotencyStore) -> None:
    def work(order: object) -> None: ...

    decorate: Any = idempotent(store, key="ordre.id", payload="x", prefix="a#b")
    with pytest.raises(ConfigurationError) as raised:
        decorate(work)
    assert [problem.partition(";")[0] for problem in raised.value.problems] == [
        "it is not async",
        "prefix = 'a#b': give up to 255 characters without '#'",
        "path 'ordre.id' begins with no parameter's name",
        "path 'x' begins with no parameter's name",
    ]
