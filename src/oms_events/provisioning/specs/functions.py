"""Lambda functions: their code, their logs, what they read from, and what becomes of what they cannot do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from oms_events.errors import SpecError
from oms_events.provisioning.specs.base import (
    Arn,
    Grant,
    Json,
    KeyArn,
    Name,
    Reference,
    Resource,
    ResourceSpec,
    RoleArn,
    Scope,
    Spec,
    arn_of,
    name_of,
)
from oms_events.provisioning.specs.logs import DEFAULT_RETENTION_DAYS, LogGroupSpec, check_retention, log_group_arn
from oms_events.provisioning.specs.mappings import StreamSourceSpec

MAX_INLINE_BYTES: Final = 4 * 1024 * 1024
"""Code within a template (CloudFormation reference, AWS::Lambda::Function Code)."""

MAX_ENVIRONMENT_BYTES: Final = 4096
"""All names and values together (Lambda quotas)."""

_MAX_NAME: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_RUNTIME: Final = re.compile(
    r"python3\.(?:9|[1-9]\d)|nodejs(?:18|[2-9]\d)\.x|java(?:8\.al2|[1-9]\d)|dotnet(?:[89]|[1-9]\d)"
    r"|ruby(?:3\.[2-9]|[4-9]\.\d)|provided\.al2(?:023)?"
)
_INLINE_RUNTIME: Final = re.compile(r"(?:python|nodejs).*")
_INLINE_MODULE: Final = "index."
_VARIABLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]+")
_RESERVED: Final = frozenset(
    (
        *("AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_REGION"),
        *("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION"),
        *("AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"),
        *("AWS_LAMBDA_RUNTIME_API", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT"),
    )
)
"""Set by Lambda (Lambda guide, "Defined runtime environment variables")."""
_LAYER: Final = re.compile(r".*:layer:[A-Za-z0-9_-]+:\d+")
_IMAGE: Final = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/\S+[:@]\S+")

FailureArn = Annotated[
    str | Reference,
    arn_of(queue="sqs:", topic="sns:", bus="events:event-bus/", bucket="s3:", function="lambda:function:"),
]


class CodeSpec(Spec):
    """Where a function's code is: an object in S3, a container image in ECR, or text in the template.

    CloudFormation sees new code only under another key, version or image: give those, never the same name again.
    Text is Python or Node and stands in a module `index`.
    """

    s3_bucket: Annotated[str | Reference, name_of("bucket")] | None = None
    s3_key: str | None = Field(default=None, min_length=1, max_length=1024)
    s3_object_version: str | None = Field(default=None, min_length=1, max_length=1024)
    image_uri: str | None = None
    inline: str | None = Field(default=None, min_length=1)

    def document(self, scope: Scope) -> Json:
        bucket = None if self.s3_bucket is None else scope.resolve(self.s3_bucket)
        values = {
            "S3Bucket": bucket,
            "S3Key": self.s3_key,
            "S3ObjectVersion": self.s3_object_version,
            "ImageUri": self.image_uri,
            "ZipFile": self.inline,
        }
        return {name: value for name, value in values.items() if value is not None}

    @field_validator("image_uri")
    @classmethod
    def _check_image(cls, uri: str | None) -> str | None:
        if uri is not None and _IMAGE.fullmatch(uri) is None:
            raise ValueError("write <account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag> or @<digest>")
        return uri

    @field_validator("inline")
    @classmethod
    def _check_inline(cls, text: str | None) -> str | None:
        if text is not None and len(text.encode()) > MAX_INLINE_BYTES:
            raise ValueError(f"more than {MAX_INLINE_BYTES} bytes; put it into S3 and give s3_bucket and s3_key")
        return text

    @model_validator(mode="after")
    def _check(self) -> Self:
        from_s3 = (self.s3_bucket, self.s3_key, self.s3_object_version) != (None, None, None)
        if [from_s3, self.image_uri is not None, self.inline is not None].count(True) != 1:
            raise ValueError("give exactly one of s3_bucket with s3_key, image_uri, and inline")
        if from_s3 and (self.s3_bucket is None or self.s3_key is None):
            raise ValueError("s3_bucket and s3_key go together; give both")
        return self


class FunctionSpec(ResourceSpec):
    """A Lambda function with a log group, under a role of yours, and the queues and streams that it reads.

    The role must allow what `sources`, `dead_letter` and the logs (`log_arn`) need: put those statements into the
    role itself, for Lambda checks them when it makes the function. Limits: Lambda quotas and API reference,
    CreateFunction.
    """

    kind: ClassVar[str] = "function"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    description: str | None = Field(default=None, max_length=256)
    code: CodeSpec
    handler: str | None = Field(default=None, max_length=128, pattern=r"^\S+$")
    """`module.function`. For an image the command that its entry point gets instead of its own, so that several
    functions can share one image."""
    runtime: str = "python3.13"
    """Left out of the template for an image."""
    role: RoleArn
    timeout: int = Field(default=30, ge=1, le=900)
    """Seconds."""
    memory: int = Field(default=256, ge=128, le=10_240)
    """MB; a function gets processor time in proportion."""
    ephemeral_storage: int | None = Field(default=None, ge=512, le=10_240)
    """MB in `/tmp`; 512 unless given."""
    environment: Mapping[str, Name] = Field(default_factory=dict)
    reserved_concurrency: int | None = Field(default=None, ge=0)
    """How many run at most at a time; they are taken out of what the account's other functions share."""
    tracing: bool = False
    """Whether X-Ray samples its calls; the role must allow `xray:PutTraceSegments`, `xray:PutTelemetryRecords`."""
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    layers: tuple[Arn, ...] = Field(default=(), max_length=5)
    kms_key: KeyArn | None = None
    """A key of your own for the environment."""

    log_group: Annotated[str | Reference, name_of("log_group")] | None = None
    """The log group that it writes to; without one, the stack makes `/aws/lambda/<name>`."""
    log_retention_days: int | None = None
    """For the log group that the stack makes; 30 unless given."""

    dead_letter: FailureArn | None = None
    """Where asynchronous events go that failed for good: a standard queue or topic, a bus, bucket or function."""
    maximum_retry_attempts: int | None = Field(default=None, ge=0, le=2)
    """For asynchronous events; 2 unless given."""
    maximum_event_age_in_seconds: int | None = Field(default=None, ge=60, le=21_600)
    """For asynchronous events; 6 hours unless given."""

    sources: tuple[StreamSourceSpec, ...] = ()

    @property
    def log_arn(self) -> str | Reference:
        """The ARN of its log group's streams, for the role's `logs:CreateLogStream` and `logs:PutLogEvents`."""
        if isinstance(self.log_group, Reference):
            return Reference(ref=self.log_group.ref)
        return log_group_arn(self.log_group or _log_group_name(self.name))

    @property
    def own_log_group(self) -> str | None:
        """The name of the log group that the stack makes for it, or None where it has another."""
        return _log_group_name(self.name) if self.log_group is None else None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        made = {self.logical_id: Resource(type="AWS::Lambda::Function", properties=self._properties(scope))}
        if self.log_group is None:
            made |= self._log_group_spec().resources(scope)
        if (self.dead_letter, self.maximum_retry_attempts, self.maximum_event_age_in_seconds) != (
            None,
            None,
            None,
        ):
            made[f"{self.logical_id}Asynchronous"] = self._asynchronous(scope)
        for source in self.sources:
            made[f"{self.logical_id}From{source.logical_id}"] = source.resource(self.value_of("name"), scope)
        return made

    def granted(self, grants: Sequence[Grant], scope: Scope) -> dict[str, Resource]:
        made = {}
        for grant in grants:
            if "*" in json.dumps(grant.source):
                problem = f"{grant.principal} may not invoke it for {grant.source!r}; name one resource"
                raise SpecError(f"FunctionSpec {self.key!r}", [problem])
            properties = {
                "Action": "lambda:InvokeFunction",
                "FunctionName": self.value_of("arn"),
                "Principal": grant.principal,
                "SourceArn": grant.source,
            }
            permission = Resource(type="AWS::Lambda::Permission", properties=properties)
            made[f"{self.logical_id}Allow{_source_id(grant)}"] = permission
        return made

    def _log_group_spec(self) -> LogGroupSpec:
        days = self.log_retention_days or DEFAULT_RETENTION_DAYS
        return LogGroupSpec(name=_log_group_name(self.name), key=f"lambda-{self.key}"[:128], retention_days=days)

    def _properties(self, scope: Scope) -> dict[str, Json]:
        is_image = self.code.image_uri is not None
        if self.log_group is None:
            log_group = self._log_group_spec().value_of("name")
        else:
            log_group = scope.resolve(self.log_group)
        variables = {name: scope.resolve(value) for name, value in self.environment.items()}
        storage = None if self.ephemeral_storage is None else {"Size": self.ephemeral_storage}
        return {
            "FunctionName": self.name,
            "Description": self.description,
            "PackageType": "Image" if is_image else None,
            "Code": self.code.document(scope),
            "ImageConfig": {"Command": [self.handler]} if is_image and self.handler else None,
            "Handler": None if is_image else self.handler,
            "Runtime": None if is_image else self.runtime,
            "Role": scope.resolve(self.role),
            "Timeout": self.timeout,
            "MemorySize": self.memory,
            "EphemeralStorage": storage,
            "Environment": {"Variables": variables} if variables else None,
            "ReservedConcurrentExecutions": self.reserved_concurrency,
            "TracingConfig": {"Mode": "Active"} if self.tracing else None,
            "Architectures": [self.architecture],
            "Layers": [scope.resolve(layer) for layer in self.layers] or None,
            "KmsKeyArn": None if self.kms_key is None else scope.resolve(self.kms_key),
            "LoggingConfig": {"LogGroup": log_group},
        }

    def _asynchronous(self, scope: Scope) -> Resource:
        destination = None
        if self.dead_letter is not None:
            destination = {"OnFailure": {"Destination": scope.resolve(self.dead_letter)}}
        properties = {
            "FunctionName": self.value_of("name"),
            "Qualifier": "$LATEST",
            "MaximumRetryAttempts": self.maximum_retry_attempts,
            "MaximumEventAgeInSeconds": self.maximum_event_age_in_seconds,
            "DestinationConfig": destination,
        }
        return Resource(type="AWS::Lambda::EventInvokeConfig", properties=properties)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None or len(name) > _MAX_NAME:
            remedy = "shorten it" if len(name) > _MAX_NAME else "change it"
            raise ValueError(f"a function's name is 1 to {_MAX_NAME} letters, digits, '-' and '_'; {remedy}")
        return name

    @field_validator("runtime")
    @classmethod
    def _check_runtime(cls, runtime: str) -> str:
        if _RUNTIME.fullmatch(runtime) is None:
            raise ValueError("no such runtime; write one such as python3.13, nodejs22.x or provided.al2023")
        return runtime

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, environment: Mapping[str, str | Reference]) -> Mapping[str, str | Reference]:
        for name in environment:
            if _VARIABLE.fullmatch(name) is None:
                raise ValueError(
                    f"{name!r}: a variable's name is a letter, and one or more letters, digits and '_'"
                )
            if name in _RESERVED:
                raise ValueError(f"{name!r} is set by Lambda itself; take it out")
        texts = (*environment, *(value for value in environment.values() if isinstance(value, str)))
        size = sum(len(text.encode()) for text in texts)
        if size > MAX_ENVIRONMENT_BYTES:
            raise ValueError(
                f"{size} bytes of names and values, and Lambda takes {MAX_ENVIRONMENT_BYTES}; shorten it"
            )
        return environment

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: tuple[str | Reference, ...]) -> tuple[str | Reference, ...]:
        for layer in layers:
            if isinstance(layer, Reference) or _LAYER.fullmatch(layer) is None:
                raise ValueError(f"{layer!r} is no layer version; write arn:...:layer:<name>:<version>")
        return layers

    @field_validator("log_retention_days")
    @classmethod
    def _check_retention(cls, days: int | None) -> int | None:
        return None if days is None else check_retention(days)

    def _problems_together(self) -> Iterator[str]:
        if self.code.image_uri is not None:
            if self.layers:
                yield "layers are not for an image: they are in it; take them out"
        elif self.handler is None:
            yield "handler is missing; write module.function"
        if self.code.inline is not None:
            if _INLINE_RUNTIME.fullmatch(self.runtime) is None:
                yield f"runtime = {self.runtime!r}: code.inline is for Python and Node; use S3"
            if self.handler is not None and not self.handler.startswith(_INLINE_MODULE):
                yield f"handler = {self.handler!r}: code.inline stands in the module index; write index.<function>"
        if self.log_group is not None and self.log_retention_days is not None:
            yield "log_retention_days is for the log group that the stack makes; set retention_days of log_group"
        for name in dict.fromkeys(source.logical_id for source in self.sources):
            if [source.logical_id for source in self.sources].count(name) > 1:
                yield f"sources: {name} stands twice; a function reads a source once"
        if self.reserved_concurrency == 0 and self.sources:
            yield "reserved_concurrency = 0 stops the function, and its sources would wait for ever"


def _log_group_name(function: str) -> str:
    return f"/aws/lambda/{function}"


def _source_id(grant: Grant) -> str:
    """What tells one permission from another, whatever their order."""
    source = grant.source
    if isinstance(source, Mapping):
        if "Ref" in source:
            return str(source["Ref"])
        if "Fn::GetAtt" in source:
            return str(source["Fn::GetAtt"][0])
    digest = hashlib.sha256(json.dumps([grant.principal, source], sort_keys=True).encode())
    return digest.hexdigest()[:12]
