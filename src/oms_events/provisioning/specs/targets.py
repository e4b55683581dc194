"""What a rule does with an event: its targets, what they get, and what becomes of what they do not take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Self

import orjson
from pydantic import Field, field_validator, model_validator

from oms_events.provisioning.specs.base import (
    Arn,
    Json,
    JsonValue,
    QueueArn,
    Reference,
    RoleArn,
    Scope,
    Spec,
    arn_service,
)

BY_RESOURCE_POLICY: Final = {
    "lambda": "lambda:InvokeFunction",
    "sqs": "sqs:SendMessage",
    "sns": "sns:Publish",
    "logs": "logs:PutLogEvents",
}
"""Services whose targets can be allowed by a policy on the target; all others need a role (EventBridge user guide,
"Using resource-based policies for Amazon EventBridge")."""

KINDS: Final = {"function": "lambda", "queue": "sqs", "topic": "sns", "log_group": "logs", "bus": "events"}
"""Kind of spec to the service that it belongs to, for those that can be targets."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VARIABLE: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_PLACEHOLDER: Final = re.compile(r"<([^<>\s]+)>")
_JSON_PATH: Final = re.compile(r"\$(?:\.[\w@-]+|\[(?:\d+|'[^']+')\])*")
_MAX_TEMPLATE: Final = 8192
_MAX_INPUT: Final = 8192
_MAX_PATH: Final = 256
"""Characters (EventBridge API reference, Target and InputTransformer)."""
_NO_TARGETS: Final = frozenset(("batch", "ecs", "redshift", "redshift-serverless", "s3"))
"""They need parameters that a target has not here, and S3 cannot be one."""
_PREDEFINED: Final = "aws.events."


class RetryPolicySpec(Spec):
    """How long EventBridge tries again to reach a target: 24 hours and 185 attempts unless said otherwise.

    Ranges: EventBridge API reference, RetryPolicy.
    """

    maximum_retry_attempts: int = Field(default=185, ge=0, le=185)
    maximum_event_age_in_seconds: int = Field(default=86_400, ge=60, le=86_400)


class InputTransformerSpec(Spec):
    """What a target gets instead of the event: a text in which `<variable>` stands for a part of it.

    `paths` names the variables (at most 100), each a JSON path such as `$.detail.status`; a template that begins
    with a brace is JSON, where a variable that is a text stands without quotes. Variables that begin with
    `aws.events.` are EventBridge's own. (User guide, "Amazon EventBridge input transformation".)
    """

    paths: Mapping[str, str] = Field(default_factory=dict, max_length=100)
    template: str = Field(min_length=1, max_length=_MAX_TEMPLATE)

    def document(self) -> Json:
        return {"InputPathsMap": dict(self.paths) or None, "InputTemplate": self.template}

    @field_validator("paths")
    @classmethod
    def _check_paths(cls, paths: Mapping[str, str]) -> Mapping[str, str]:
        for variable, path in paths.items():
            if _VARIABLE.fullmatch(variable) is None or variable.lower().startswith("aws"):
                raise ValueError(
                    f"variable {variable!r}: use letters, digits, '_' and '-', and no name that begins with 'aws'"
                )
            if _JSON_PATH.fullmatch(path) is None:
                raise ValueError(f"{variable} = {path!r} is no JSON path; write one such as '$.detail.status'")
            if len(path) > _MAX_PATH:
                raise ValueError(
                    f"{variable}: a path has at most {_MAX_PATH} characters, not {len(path)}; shorten it"
                )
        return paths

    @model_validator(mode="after")
    def _check(self) -> Self:
        used = {found[1] for found in _PLACEHOLDER.finditer(self.template)}
        unknown = sorted(name for name in used if name not in self.paths and not name.startswith(_PREDEFINED))
        if unknown:
            raise ValueError(f"template uses <{unknown[0]}>, which `paths` does not name; add its JSON path")
        if self.template.lstrip().startswith("{") and not self._is_json():
            raise ValueError(
                "template begins with a brace and is no JSON once its variables are filled in; quote its keys and "
                "texts, and put no quotes around a variable that stands alone"
            )
        return self

    def _is_json(self) -> bool:
        """Whether it is JSON with numbers in the variables' places, inside and outside of texts."""
        try:
            orjson.loads(_PLACEHOLDER.sub("0", self.template))
        except orjson.JSONDecodeError:
            return False
        return True


class TargetSpec(Spec):
    """One target of a rule. It gets the event, or one of `input`, `input_path` and `input_transformer`.

    Functions, queues, topics and log groups of the same stack allow the rule by themselves; so do functions
    outside of it. Queues and topics outside need a policy that you write, or a `role`; log groups outside need a
    policy, and every other service a role. So does everything in another account than the rule's.
    """

    id: str
    arn: Arn
    role: RoleArn | None = None
    """The role that EventBridge takes on to reach the target, instead of a policy there; not for log groups."""
    input: JsonValue = None
    """A JSON value that the target gets each time, of at most 8,192 characters."""
    input_path: str | None = Field(default=None, max_length=_MAX_PATH)
    """The part of the event that the target gets, as a JSON path."""
    input_transformer: InputTransformerSpec | None = None
    retry_policy: RetryPolicySpec | None = None
    dead_letter: QueueArn | None = None
    """The standard queue for events that the target did not take."""
    message_group_id: str | None = Field(default=None, min_length=1, max_length=128)
    """For a FIFO queue: the group that all events are put in."""

    @property
    def policy_action(self) -> str | None:
        """What the target's own policy must allow, or None where a role does."""
        return BY_RESOURCE_POLICY.get(self.service) if self.role is None else None

    @property
    def service(self) -> str:
        """The service of the target."""
        if isinstance(self.arn, Reference):
            return KINDS.get(self.arn.kind, "")
        return arn_service(self.arn)

    def document(self, scope: Scope) -> Json:
        dead_letter = None if self.dead_letter is None else {"Arn": scope.resolve(self.dead_letter)}
        retry = self.retry_policy
        values: dict[str, Json] = {
            "Id": self.id,
            "Arn": self._address(scope),
            "RoleArn": None if self.role is None else scope.resolve(self.role),
            "Input": self._input_text(),
            "InputPath": self.input_path,
            "InputTransformer": None if self.input_transformer is None else self.input_transformer.document(),
            "RetryPolicy": None
            if retry is None
            else {
                "MaximumRetryAttempts": retry.maximum_retry_attempts,
                "MaximumEventAgeInSeconds": retry.maximum_event_age_in_seconds,
            },
            "DeadLetterConfig": dead_letter,
            "SqsParameters": None if self.message_group_id is None else {"MessageGroupId": self.message_group_id},
        }
        return {name: value for name, value in values.items() if value is not None}

    def _input_text(self) -> str | None:
        return None if self.input is None else orjson.dumps(self.input).decode()

    def _address(self, scope: Scope) -> Json:
        if not isinstance(self.arn, Reference) or self.arn.kind != "log_group":
            return scope.resolve(self.arn)
        # A log group's own ARN ends with ':*'. With it a rule is taken, and nothing ever arrives.
        group = scope.find(self.arn).logical_id
        return {
            "Fn::Sub": f"arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:${{{group}}}"
        }

    @field_validator("id")
    @classmethod
    def _check_id(cls, text: str) -> str:
        if _ID.fullmatch(text) is None:
            raise ValueError("a target's id is 1 to 64 letters, digits, '.', '-' and '_'")
        return text

    @field_validator("input_path")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        if path is not None and _JSON_PATH.fullmatch(path) is None:
            raise ValueError("is no JSON path; write one such as '$.detail'")
        return path

    def _problems_together(self) -> Iterator[str]:
        inputs = [name for name in ("input", "input_path", "input_transformer") if getattr(self, name) is not None]
        if len(inputs) > 1:
            yield f"{' and '.join(inputs)} exclude each other; keep one"
        if (length := len(self._input_text() or "")) > _MAX_INPUT:
            yield f"input: {length} characters of JSON, and a target takes {_MAX_INPUT}; put it into S3"
        if isinstance(self.arn, Reference) and not self.service:
            yield f"arn: a {self.arn.kind} is no target; {', '.join(sorted(KINDS))} are"
        if self.service in _NO_TARGETS:
            yield f"arn: {self.service} cannot be a target here; let a function or a state machine do it"
        elif self.service not in BY_RESOURCE_POLICY and self.service and self.role is None:
            yield f"role is missing: EventBridge reaches {self.service} only with a role"
        if self.service == "logs" and self.role is not None:
            yield "role: EventBridge writes to log groups by their policy alone; leave `role` out"
        if isinstance(self.arn, str) and self.service == "logs" and self.arn.endswith(":*"):
            yield f"arn = {self.arn!r}: a log group is a target without ':*' at the end; leave it out"
