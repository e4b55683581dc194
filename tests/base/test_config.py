from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr, ValidationError

from oms_events._config import ConfigModel
from oms_events.errors import ConfigurationError


class Inner(ConfigModel):
    size: int = Field(default=1, ge=1)


class Sample(ConfigModel):
    count: int = Field(ge=1)
    password: SecretStr | None = None
    inner: Inner = Inner()


def test_all_problems_are_reported_together_with_field_value_and_remedy() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sample(count=0, colour="red")  # type: ignore[call-arg]
    assert caught.value.subject == "Sample"
    assert len(caught.value.problems) == 2
    text = str(caught.value)
    assert "count = 0: Input should be greater than or equal to 1" in text
    assert "unknown field 'colour'; known fields: count, inner, password" in text


def test_an_unknown_field_that_is_nearly_a_known_one_gets_that_one_proposed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sample(count=1, pasword="x")  # type: ignore[call-arg]
    assert caught.value.problems == ("unknown field 'pasword'; did you mean 'password'?",)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigurationError, match="field 'count' is missing"):
        Sample()  # type: ignore[call-arg]


def test_problems_of_a_nested_model_have_their_path() -> None:
    with pytest.raises(ConfigurationError, match="size = 0"):
        Sample(count=1, inner={"size": 0})  # type: ignore[arg-type]


def test_a_secret_is_in_no_message_and_no_repr() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sample(count=1, password=12345)  # type: ignore[arg-type]
    assert "12345" not in str(caught.value)
    assert "hunter2" not in repr(Sample(count=1, password=SecretStr("hunter2")))


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sample(count=1).count = 2  # type: ignore[misc]


def test_a_part_with_a_name_that_is_no_text_is_a_problem_of_its_field() -> None:
    with pytest.raises(ConfigurationError, match="inner: True is a name that is no text; put it in quotes"):
        Sample(count=1, inner={True: 1})  # type: ignore[arg-type]


def test_a_field_that_pythons_methods_know_is_unknown_here() -> None:
    with pytest.raises(ConfigurationError, match="unknown field 'self'"):
        Sample(count=1, inner={"self": 1})  # type: ignore[arg-type]


class Cat(ConfigModel):
    type: Literal["cat"]


class Dog(ConfigModel):
    type: Literal["dog"]


class Owner(ConfigModel):
    pet: Annotated[Cat | Dog, Field(discriminator="type")]


def test_a_part_that_does_not_say_its_kind_is_told_which_field_says_it() -> None:
    with pytest.raises(ConfigurationError, match="pet: field 'type' is missing; give it a value"):
        Owner(pet={})  # type: ignore[arg-type]
