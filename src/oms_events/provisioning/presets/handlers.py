"""What the functions of presets share: code that is not there yet, logs, tracing, and their roles."""

from __future__ import annotations

from typing import Any, Final

from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.functions import CodeSpec
from oms_events.provisioning.specs.logs import log_group_arn
from oms_events.provisioning.specs.permissions import EVERYTHING, StatementSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.trust import ServiceTrust

LAMBDA_SERVICE: Final = "lambda.amazonaws.com"

INLINE_HANDLER: Final = "index.handler"

NO_CODE: Final = CodeSpec(
    inline=(
        "def handler(event, context):\n"
        '    raise RuntimeError("this function has no code: deploy the stack again with the variable `code`")\n'
    )
)
"""For a stack that is made before its code: what comes until then fails, and goes where failures go."""

NO_CODE_RUNTIME: Final = "python3.13"


def code_options(code: CodeSpec | None, *, handler: str | None, default: str, runtime: str) -> dict[str, Any]:
    """A function's `code`, `handler` and `runtime`; an image gets the handler as its command.

    Without code neither the handler nor the runtime of the code to come counts.
    """
    if code is None:
        return {"code": NO_CODE, "handler": INLINE_HANDLER, "runtime": NO_CODE_RUNTIME}
    default = default if code.inline is None else INLINE_HANDLER
    return {"code": code, "handler": handler or default, "runtime": runtime}


def function_role(key: str, function: str, *statements: StatementSpec, tracing: bool) -> RoleSpec:
    """The role of the function with that name: its own log group, X-Ray with `tracing`, and the statements."""
    needed = [
        StatementSpec(
            sid="WriteLogs",
            actions=("logs:CreateLogStream", "logs:PutLogEvents"),
            resources=(log_group_arn(f"/aws/lambda/{function}"),),
            why="its own log group, which the stack makes",
        )
    ]
    if tracing:
        needed.append(
            StatementSpec(
                sid="Trace",
                actions=("xray:PutTraceSegments", "xray:PutTelemetryRecords"),
                resources=(EVERYTHING,),
                why="X-Ray knows no resources for these",
            )
        )
    return RoleSpec(
        name=f"{function}-role",
        key=key,
        trust=(ServiceTrust(service=LAMBDA_SERVICE),),
        statements=(*needed, *statements),
    )


def allow(sid: str, why: str, resources: Reference | tuple[str | Reference, ...], *actions: str) -> StatementSpec:
    """A statement in one line."""
    named = (resources,) if isinstance(resources, Reference) else resources
    return StatementSpec(sid=sid, actions=actions, resources=named, why=why)


FIND_STREAMS: Final = allow(
    "FindStreams", "Lambda asks for it, and IAM knows no resource", (EVERYTHING,), "dynamodb:ListStreams"
)
"""What Lambda needs beside the stream itself to read one as a role (Lambda guide, "Process DynamoDB records")."""
