"""What all specs share: names, references between the resources of a stack, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Protocol, Self, TypeVar, get_origin

from pydantic import (
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainValidator,
    model_validator,
)

from oms_events._config import ConfigModel, fields_by_name, plain_json
from oms_events.errors import ConfigurationError, SpecError

Json = Any
"""A JSON value that may hold CloudFormation's intrinsic functions."""

JsonValue = Annotated[Any, BeforeValidator(plain_json)]
"""The type of a field that is any JSON value: checked, and a copy of what was given."""

JsonObject = Annotated[Mapping[str, Any], BeforeValidator(plain_json)]
"""The type of a field that is a JSON object."""

_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_KEY_LENGTH: Final = 128
_NOT_IN_KEY: Final = re.compile(r"[^A-Za-z0-9_.]+")
_WORDS: Final = re.compile(r"[A-Za-z0-9]+")
_ARN: Final = re.compile(
    r"arn:(?:aws[\w-]*|\$\{AWS::Partition\}):(?P<service>[a-z0-9-]+):[^\s:]*:(?P<account>[^\s:]*):\S+"
)
_ACCOUNT: Final = re.compile(r"\d{12}|aws||.*[*?${}].*")
"""Its digits, `aws` for what AWS gives to all, nothing (S3); wildcards and variables are judged elsewhere."""

_EC2_ACTION: Final = ("automate", "ec2")
"""What stands in the ARNs of the actions by which an alarm stops or restarts an instance (CloudWatch)."""

_STANDS_FOR: Final = {"${AWS::Partition}": "${AWS::Partition}", "${AWS::AccountId}": "0" * 12}
PSEUDO: Final = re.compile(r"\$\{AWS::(?:Partition|Region|AccountId|URLSuffix|StackName)\}")
_OTHER: Final = re.compile(r"\$\{(?!AWS::(?:Partition|Region|AccountId|URLSuffix|StackName)\})")
_LOGICAL_ID_LENGTH: Final = 255


class Spec(ConfigModel):
    """A frozen model that refuses what AWS would refuse, all problems at once, each with field and remedy.

    Raises `SpecError`, whose subject is the spec's kind and name.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    _error_class: ClassVar[type[ConfigurationError]] = SpecError

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, checked as a new spec is."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**(values | dict(update or {})))

    def _problems_together(self) -> Iterator[str]:
        """What its fields cannot be together, each with its remedy; asked when each field by itself is well."""
        yield from ()

    @model_validator(mode="before")
    @classmethod
    def _check_lists(cls, values: object) -> object:
        # Else pydantic takes it apart, for a model can be iterated. (Discriminators take no validator of fields.)
        given = values if isinstance(values, Mapping) else {}
        problems = [
            f"{name}: give a list, such as {name}=({type(given[name]).__name__}(...),)"
            for name, field in cls.model_fields.items()
            if get_origin(field.annotation) is tuple and isinstance(given.get(name), Spec)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := list(self._problems_together()):
            # One cause can show in several places.
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return self

    @classmethod
    def _subject(cls, values: dict[str, Any]) -> str:
        name = values.get("name") or values.get("key") or values.get("id")
        return f"{cls.__name__} {name!r}" if isinstance(name, str) else cls.__name__


class Reference(Spec):
    """Another resource of the same stack, as `{"ref": "queue:orders-dlq"}`: its kind, its key, and what of it."""

    ref: str
    attribute: str = "arn"

    @property
    def kind(self) -> str:
        return self.ref.partition(":")[0]

    @property
    def key(self) -> str:
        return self.ref.partition(":")[2]

    def _problems_together(self) -> Iterator[str]:
        if not self.kind or not self.key:
            yield f"ref = {self.ref!r}: write kind and key of a spec, such as 'queue:orders-dlq'"


def check_arn(text: str) -> str:
    """An ARN, which may have `${AWS::Region}` and its like in it. Raises `ValueError`."""
    found = _ARN.fullmatch(PSEUDO.sub(lambda pseudo: _STANDS_FOR.get(pseudo[0], "x"), text))
    if found is None:
        raise ValueError(
            "is no ARN; write arn:<partition>:<service>:<region>:<account>:<resource> (${AWS::Partition}, "
            "${AWS::Region} and ${AWS::AccountId} may stand for their values), or {ref: 'kind:key'} for a "
            "resource of this stack"
        )
    if _ACCOUNT.fullmatch(found["account"]) is None and (found["service"], found["account"]) != _EC2_ACTION:
        raise ValueError(
            f"is no ARN: {found['account']!r} is no account; write its 12 digits, or ${{AWS::AccountId}}"
        )
    return text


def arn_service(arn: str) -> str:
    """The service in an ARN: `sqs`, `lambda`."""
    return PSEUDO.sub("x", arn).split(":", 3)[2]


def _read_name(value: object) -> str | Reference:
    if isinstance(value, Mapping):
        return Reference(**fields_by_name(value))
    if isinstance(value, Reference) or (isinstance(value, str) and value):
        return value
    raise ValueError(f"{value!r} is neither text nor a reference {{ref: 'kind:key'}}")


def _read_arn(value: object) -> str | Reference:
    read = _read_name(value)
    if isinstance(read, Reference) and not read.attribute.endswith("arn"):
        raise ValueError(f"ref = {read.ref!r}, attribute = {read.attribute!r}: is no ARN; use the attribute 'arn'")
    return check_arn(read) if isinstance(read, str) else read


def arn_of(**kinds: str) -> PlainValidator:
    """Reads an ARN of some kinds of resources only: the kind of a spec, and what its ARN has after the partition.

    Region and account are left out of it: `sqs:`, `iam:role/`.
    """

    def read(value: object) -> str | Reference:
        arn = _read_arn(value)
        if isinstance(arn, Reference):
            fits, shown = arn.kind in kinds, arn.ref
        else:
            _, _, service, _, _, resource = PSEUDO.sub("x", arn).split(":", 5)
            fits, shown = f"{service}:{resource}".startswith(tuple(kinds.values())), arn
        if not fits:
            wanted = " or ".join(kind.replace("_", " ") for kind in kinds)
            raise ValueError(
                f"{shown!r} is no {wanted}; give the ARN of one, or {{ref: '{next(iter(kinds))}:key'}}"
            )
        return arn

    return PlainValidator(read)


def name_of(kind: str) -> PlainValidator:
    """Reads a name as text, or as the reference to a spec of that kind with the attribute `name`."""

    def read(value: object) -> str | Reference:
        name = _read_name(value)
        if isinstance(name, Reference) and (name.kind, name.attribute) != (kind, "name"):
            raise ValueError(
                f"ref = {name.ref!r}, attribute = {name.attribute!r}: is no name of a {kind}; write "
                f"{{ref: '{kind}:key', attribute: name}}"
            )
        return name

    return PlainValidator(read)


BusArn = Annotated[str | Reference, arn_of(bus="events:event-bus/")]
KeyArn = Annotated[str | Reference, arn_of(key="kms:")]
QueueArn = Annotated[str | Reference, arn_of(queue="sqs:")]
RoleArn = Annotated[str | Reference, arn_of(role="iam:role/")]
Arn = Annotated[str | Reference, PlainValidator(_read_arn)]
Name = Annotated[str | Reference, PlainValidator(_read_name)]
"""A resource's name: text, or the reference to a spec with the attribute `name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One entry of a template's `Resources`."""

    type: str
    properties: Mapping[str, Json]
    depends_on: Sequence[str] = ()
    deletion_policy: str | None = None
    replace_policy: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)

    def document(self) -> dict[str, Json]:
        entry: dict[str, Json] = {"Type": self.type}
        if self.depends_on:
            entry["DependsOn"] = sorted(self.depends_on)
        if self.deletion_policy is not None:
            entry["DeletionPolicy"] = self.deletion_policy
        if self.replace_policy is not None:
            entry["UpdateReplacePolicy"] = self.replace_policy
        if self.metadata:
            entry["Metadata"] = dict(self.metadata)
        # What is not said is left to CloudFormation.
        entry["Properties"] = {name: value for name, value in self.properties.items() if value is not None}
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An AWS service may use a resource on behalf of another: what becomes a statement of its resource policy.

    `source` is the ARN of the one that it acts for (`aws:SourceArn`), so that nobody can send it elsewhere.
    `group` is an ARN with a wildcard for it and all of its like, where a policy with each by name grew too long.
    """

    to: str | Reference
    principal: str
    actions: Sequence[str]
    source: Json
    group: Json = None


class Scope(Protocol):
    """The stack that a spec is part of, as its specs see it while they become resources."""

    def find(self, reference: Reference) -> ResourceSpec:
        """The spec that is meant; that it is there was checked when the stack was made."""

    def resolve(self, value: Arn | Name) -> Json:
        """What stands in the template for an ARN or a name."""

    def of_type(self, spec_type: type[AnySpec]) -> Sequence[AnySpec]:
        """The stack's specs of one type, in their order."""


class ResourceSpec(Spec):
    """A spec of one AWS resource.

    `key` names it inside its stack, by default as `name` does, with '-' for what a key does not take.
    """

    kind: ClassVar[str]
    returns: ClassVar[Mapping[str, str]]
    """Attribute to CloudFormation's return value: an attribute of `Fn::GetAtt`, or `Ref`."""

    name: str
    key: str = ""

    @property
    def logical_id(self) -> str:
        """Its name in the template."""
        return logical_id(self.kind, self.key)

    @property
    def arn(self) -> Reference:
        """Its ARN, for the fields of other specs of the stack."""
        return self.reference("arn")

    def reference(self, attribute: str = "arn") -> Reference:
        """One of its return values, for the fields of other specs of the stack. Raises `SpecError`."""
        if problem := self.why_without(attribute):
            raise SpecError(f"{type(self).__name__} {self.key!r}", [problem])
        if attribute not in self.returns:
            known = ", ".join(sorted(self.returns))
            problem = f"attribute = {attribute!r}: a {self.kind} has {known}"
            raise SpecError(f"{type(self).__name__} {self.key!r}", [problem])
        return Reference(ref=f"{self.kind}:{self.key}", attribute=attribute)

    def references(self) -> Iterator[Reference]:
        """Every reference in its fields."""
        yield from _references(dict(self))

    def value_of(self, attribute: str) -> Json:
        """The intrinsic function that gives one of its return values."""
        returned = self.returns[attribute]
        return {"Ref": self.logical_id} if returned == "Ref" else {"Fn::GetAtt": [self.logical_id, returned]}

    def why_without(self, attribute: str) -> str | None:
        """Why this spec has no such return value although others of its kind do; None when it has it."""
        return None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        """Logical id to resource, without the policy that lets others use it."""
        raise NotImplementedError

    def grants(self, scope: Scope) -> Iterator[Grant]:
        """What AWS services must be allowed on other resources, so that this one works."""
        yield from ()

    def granted(self, grants: Sequence[Grant], scope: Scope) -> dict[str, Resource]:
        """The policy of this resource, with what the stack's other specs need of it; may be nothing."""
        if grants:
            raise SpecError(
                f"{type(self).__name__} {self.key!r}",
                [f"{grants[0].principal} cannot be allowed to use a {self.kind}"],
            )
        return {}

    @model_validator(mode="wrap")
    @classmethod
    def _complete(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        spec = handler(values)
        # Not through `model_fields_set`: a copy with another name gets that name as its key.
        spec.__dict__["key"] = spec.key or _key_of(spec.name)
        if _KEY.fullmatch(spec.key) is None:
            raise ValueError(
                f"key = {spec.key!r}: a key is letters, digits, '.', '_' and '-'; give `key` where `name` has "
                "others"
            )
        return spec


def _key_of(name: str) -> str:
    """The name, or where a key does not take it, its words with '-' between, without pseudo parameters."""
    if _KEY.fullmatch(name):
        return name
    return _NOT_IN_KEY.sub("-", PSEUDO.sub("-", name)).strip("-._")[:_KEY_LENGTH]


AnySpec = TypeVar("AnySpec", bound=ResourceSpec)


def logical_id(*parts: str) -> str:
    """CamelCase of the words, as CloudFormation wants it: letters and digits only."""
    words = [word for part in parts for word in _WORDS.findall(part)]
    return "".join(word[0].upper() + word[1:] for word in words)[:_LOGICAL_ID_LENGTH]


def escaped(text: str) -> str:
    """The text for an `Fn::Sub`: pseudo parameters get their values, any other `${` stands for itself."""
    return _OTHER.sub("${!", text)


def substituted(text: str) -> Json:
    """The text, with pseudo parameters in it as `Fn::Sub`."""
    return {"Fn::Sub": escaped(text)} if PSEUDO.search(text) else text


def substituted_within(value: Json) -> Json:
    """A JSON value with the same done to every text in it."""
    if isinstance(value, str):
        return substituted(value)
    if isinstance(value, Mapping):
        return {name: substituted_within(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [substituted_within(item) for item in value]
    return value


def _references(value: object) -> Iterator[Reference]:
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Spec):
        yield from _references(dict(value))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
