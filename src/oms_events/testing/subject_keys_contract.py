"""The contract of `SubjectKeys` as tests: subclass it beside your own implementation's tests."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from oms_events.errors import PersonalDataError
from oms_events.eventstore.personal.keys import KEY_BYTES, SubjectKey, SubjectKeys

_CROWD = 20
_MANY = 120


def secret_of(key: SubjectKey) -> bytes:
    assert key.secret is not None
    return key.secret.get_secret_value()


class SubjectKeysContract:
    """Subclass as `class TestMine(SubjectKeysContract)` and give it a fixture `keys`."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def subject(self) -> str:
        """A person whom nobody knows."""
        return f"person-{uuid.uuid4()}"

    async def test_somebody_unknown_has_no_key(self, keys: SubjectKeys, subject: str) -> None:
        assert dict(await keys.get([subject])) == {}
        assert dict(await keys.get([])) == {}

    async def test_a_key_is_made_once(self, keys: SubjectKeys, subject: str) -> None:
        key = await keys.get_or_create(subject)
        assert (key.version, len(secret_of(key)), key.is_deleted) == (1, KEY_BYTES, False)
        assert await keys.get_or_create(subject) == key
        assert await keys.renew(subject) == key
        assert dict(await keys.get([subject, subject])) == {subject: key}

    async def test_everybody_has_a_key_of_their_own(self, keys: SubjectKeys, subject: str) -> None:
        names = [f"{subject}-{number}" for number in range(_MANY)]
        made = dict(zip(names, await asyncio.gather(*map(keys.get_or_create, names)), strict=True))
        assert len(set(map(secret_of, made.values()))) == _MANY
        assert dict(await keys.get([*names, subject])) == made

    async def test_all_who_renew_it_at_once_get_the_same(self, keys: SubjectKeys, subject: str) -> None:
        await keys.get_or_create(subject)
        await keys.delete(subject)
        made = await asyncio.gather(*(keys.renew(subject) for _ in range(_CROWD)))
        assert {key.version for key in made} == {2}
        assert len(set(map(secret_of, made))) == 1

    async def test_all_who_make_it_at_once_get_the_same(self, keys: SubjectKeys, subject: str) -> None:
        made = await asyncio.gather(*(keys.get_or_create(subject) for _ in range(_CROWD)))
        assert len(set(map(secret_of, made))) == 1
        assert dict(await keys.get([subject])) == {subject: made[0]}

    async def test_a_deleted_key_leaves_a_mark(self, keys: SubjectKeys, subject: str) -> None:
        await keys.get_or_create(subject)
        for _ in range(2):
            await keys.delete(subject)
            assert dict(await keys.get([subject])) == {subject: SubjectKey(1, None)}
            assert await keys.get_or_create(subject) == SubjectKey(1, None)

    async def test_somebody_unknown_is_forgotten_in_advance(self, keys: SubjectKeys, subject: str) -> None:
        await keys.delete(subject)
        assert await keys.get_or_create(subject) == SubjectKey(0, None)

    async def test_a_new_key_is_another_one_of_the_next_version(self, keys: SubjectKeys, subject: str) -> None:
        first = await keys.get_or_create(subject)
        for version in (2, 3):
            await keys.delete(subject)
            key = await keys.renew(subject)
            assert key.version == version
            assert secret_of(key) != secret_of(first)
            assert await keys.get_or_create(subject) == key

    async def test_while_it_is_deleted_and_made_at_once_all_agree_in_the_end(
        self, keys: SubjectKeys, subject: str
    ) -> None:
        calls = [*(keys.get_or_create(subject) for _ in range(5)), *(keys.delete(subject) for _ in range(3))]
        await asyncio.gather(*calls)
        assert (await keys.get_or_create(subject)).is_deleted

    @pytest.mark.parametrize("name", ["ä#/ \n\x00", "x" * 2048])
    async def test_any_text_is_a_subject(self, keys: SubjectKeys, subject: str, name: str) -> None:
        name = (subject + name)[:2048]
        key = await keys.get_or_create(name)
        assert dict(await keys.get([name])) == {name: key}

    @pytest.mark.parametrize("name", ["", "x" * 2049, "\ud800"])
    async def test_what_is_no_subject_is_refused(self, keys: SubjectKeys, name: str) -> None:
        for act in (keys.get_or_create, keys.renew, keys.delete):
            with pytest.raises(PersonalDataError, match="subject"):
                await act(name)

    async def test_no_key_shows_in_what_is_printed(self, keys: SubjectKeys, subject: str) -> None:
        key = await keys.get_or_create(subject)
        told = f"{key} {key!r} {[key]} {keys!r}"
        assert repr(secret_of(key))[2:-1] not in told
        assert secret_of(key).hex() not in told
