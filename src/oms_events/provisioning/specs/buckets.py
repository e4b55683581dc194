"""S3 buckets: private, encrypted, over TLS only, and kept when their stack goes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

from pydantic import Field, model_validator

from oms_events.provisioning.specs.base import Grant, Json, KeyArn, Resource, ResourceSpec, Scope, substituted
from oms_events.provisioning.specs.policies import grant_statements, policy_document, tls_statement

_NAME: Final = re.compile(
    r"(?!xn--|sthree-|amzn-s3-demo-)[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9](?<!-s3alias)(?<!--ol-s3)"
)
_PSEUDO: Final = {"${AWS::AccountId}": "123456789012", "${AWS::Region}": "us-east-1"}
_ABORT_DAYS: Final = 7


class BucketSpec(ResourceSpec):
    """An S3 bucket without public access, encrypted by S3, or with `kms_key`; it outlives its stack.

    Names are taken once in the whole world: put `${AWS::AccountId}` and `${AWS::Region}` into it, or leave it to
    CloudFormation and give `key` alone. Uploads in parts that nobody finished are cleared away after 7 days.
    """

    kind: ClassVar[str] = "bucket"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    name: str = ""
    versioning: bool = True
    eventbridge: bool = False
    """Whether S3 sends its events to the account's default bus, where rules can match them."""
    expiration_days: int | None = Field(default=None, ge=1)
    """After how many days objects are deleted; never unless given."""
    noncurrent_expiration_days: int | None = Field(default=None, ge=1)
    """After how many days versions are deleted that were overwritten or deleted; never unless given."""
    kms_key: KeyArn | None = None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        notification = {"EventBridgeConfiguration": {"EventBridgeEnabled": True}} if self.eventbridge else None
        properties: dict[str, Json] = {
            "BucketName": substituted(self.name) if self.name else None,
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [self._encryption(scope)]},
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "VersioningConfiguration": {"Status": "Enabled"} if self.versioning else None,
            "NotificationConfiguration": notification,
            "LifecycleConfiguration": {"Rules": [self._lifecycle()]},
        }
        made = Resource(
            type="AWS::S3::Bucket",
            properties=properties,
            # A first deployment that fails leaves no bucket, whose name would be in the way of the next.
            deletion_policy="RetainExceptOnCreate",
            replace_policy="Retain",
        )
        return {self.logical_id: made}

    def granted(self, grants: Sequence[Grant], scope: Scope) -> dict[str, Resource]:
        everything = [self.value_of("arn"), {"Fn::Sub": f"${{{self.logical_id}.Arn}}/*"}]
        document = policy_document([*grant_statements(grants, everything), tls_statement("s3:*", everything)])
        properties = {"Bucket": self.value_of("name"), "PolicyDocument": document}
        return {f"{self.logical_id}Policy": Resource(type="AWS::S3::BucketPolicy", properties=properties)}

    def _encryption(self, scope: Scope) -> Json:
        if self.kms_key is None:
            return {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        by_key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": scope.resolve(self.kms_key)}
        return {"ServerSideEncryptionByDefault": by_key, "BucketKeyEnabled": True}

    def _lifecycle(self) -> Json:
        rule: dict[str, Json] = {
            "Id": "expire",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_DAYS},
        }
        if self.expiration_days is not None:
            rule["ExpirationInDays"] = self.expiration_days
        if self.noncurrent_expiration_days is not None:
            rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": self.noncurrent_expiration_days}
        return rule

    @model_validator(mode="after")
    def _check(self) -> Self:
        name = self.name
        for pseudo, value in _PSEUDO.items():
            name = name.replace(pseudo, value)
        if name and _NAME.fullmatch(name) is None:
            raise ValueError(
                f"name = {self.name!r}: a bucket's name is 3 to 63 lower-case letters, digits and '-', with a "
                "letter or digit at both ends"
            )
        if self.noncurrent_expiration_days is not None and not self.versioning:
            raise ValueError("noncurrent_expiration_days needs versioning = true")
        return self
