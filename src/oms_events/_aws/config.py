"""What every AWS connection needs to be told; importable without aioboto3."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StrictBool, StringConstraints, field_validator, model_validator

from oms_events._config import ConfigModel

TableName = Annotated[str, StringConstraints(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")]

_ROLE_ARN = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/.+")


class AwsConfig(ConfigModel):
    """Where AWS is, who we are there, and how long we wait; without credentials the normal AWS chain is used.

    A region that is not given is looked for where AWS tools look: `AWS_DEFAULT_REGION`, then the profile.
    """

    aws_region: str | None = Field(default=None, min_length=1)
    endpoint_url: str | None = None
    """A VPC endpoint, an emulator; the regional endpoint of the service when absent."""

    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    profile_name: str | None = Field(default=None, min_length=1)

    role_arn: str | None = None
    """A role to assume with the credentials above (or the chain's); renewed before it expires."""
    role_session_name: str = Field(
        default="oms-events", min_length=2, max_length=64, pattern=r"^[A-Za-z0-9_+=,.@-]+$"
    )
    role_external_id: str | None = Field(
        default=None, min_length=2, max_length=1224, pattern=r"^[A-Za-z0-9_+=,.@:/-]+$"
    )
    role_duration: int = Field(default=3600, ge=1800, le=43_200)
    """Seconds that one set of the role's credentials lives; below 1800 they would be renewed at every call."""
    sts_endpoint_url: str | None = None
    """Where the role is assumed; the regional endpoint of STS when absent."""

    proxies: dict[str, SecretStr] = Field(default_factory=dict)
    """Proxy URL by scheme (`http`, `https`); without it the environment's proxy variables hold."""
    ca_bundle: str | None = Field(default=None, min_length=1)
    """PEM file of the authorities that the endpoint's certificate is checked against."""
    client_cert: str | tuple[str, str] | None = None
    """PEM file with the client's certificate and key, or the two files, for mutual TLS."""

    connect_timeout: float = Field(default=5.0, gt=0)
    """Seconds to connect; the caller's deadline holds as well."""
    read_timeout: float = Field(default=10.0, gt=0)
    """Seconds without a byte of the answer; the caller's deadline holds as well."""

    @field_validator("role_arn")
    @classmethod
    def _check_role(cls, value: str | None) -> str | None:
        if value is not None and not _ROLE_ARN.fullmatch(value):
            raise ValueError("must be a role's ARN: arn:aws:iam::<account>:role/<name>")
        return value

    @field_validator("proxies")
    @classmethod
    def _check_proxies(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if unknown := sorted(value.keys() - {"http", "https"}):
            raise ValueError(f"unknown scheme {', '.join(unknown)}; keys are 'http' and 'https'")
        return value

    @model_validator(mode="after")
    def _check_urls_and_credentials(self) -> Self:
        if problems := [*self._url_problems(), *self._credential_problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _url_problems(self) -> Iterator[str]:
        # Told by the model, not by the field: a field's message repeats its value, here with a password. Where
        # the password ends cannot be known of a URL that is broken: no '@' at all is taken or repeated.
        for field, url in (("endpoint_url", self.endpoint_url), ("sts_endpoint_url", self.sts_endpoint_url)):
            if url is None:
                continue
            if "@" in url:
                yield f"{field} must not carry credentials ('@'); use the aws_... fields"
            elif not _is_http_url(url):
                yield f"{field} = {url!r}: must be an http or https URL with a host"

    def _credential_problems(self) -> Iterator[str]:
        has_id = self.aws_access_key_id is not None
        if has_id != (self.aws_secret_access_key is not None):
            yield "give both aws_access_key_id and aws_secret_access_key, or neither"
        if self.aws_session_token is not None and not has_id:
            yield "aws_session_token needs aws_access_key_id and aws_secret_access_key"
        if self.profile_name is not None and has_id:
            yield "give profile_name or aws_access_key_id, not both"
        if self.role_arn is None and (self.role_external_id is not None or self.sts_endpoint_url is not None):
            yield "role_external_id and sts_endpoint_url need role_arn"

    @property
    def credentials_kind(self) -> str:
        """Where credentials come from, in words that hold no secret."""
        if self.aws_access_key_id is not None:
            kind = "explicit keys"
        else:
            kind = f"profile {self.profile_name}" if self.profile_name else "AWS chain"
        return f"{kind}, role {self.role_arn}" if self.role_arn else kind


@runtime_checkable
class Retries(Protocol):
    """How often a call is made, and the seconds after attempt number `attempt` (from 1); `draw` gives [0, 1)."""

    @property
    def max_attempts(self) -> int: ...

    def delay(self, attempt: int, draw: Callable[[], float]) -> float: ...


class TableConfig(AwsConfig):
    """How a DynamoDB table is reached; the fields of `AwsConfig` and these."""

    made_by: ClassVar[str] = "create it"
    """What to do about a table that is not there, for messages."""
    preset: ClassVar[str] = ""
    """The preset that has such tables, for messages."""
    with_replicas: ClassVar[str] = "two may win; use a table of one Region"
    """What replicas of the table would break, and what to do, for messages."""

    connections: int = Field(default=32, ge=1)
    """Connections to DynamoDB, and so many calls at the same time."""
    retry: Retries
    """How reads, and writes that may be repeated, are tried again when DynamoDB throttles or cannot be reached."""
    verify_table: StrictBool = True
    """Whether opening looks at the table's keys; needs `dynamodb:DescribeTable`."""


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
