"""Variables that name tables of the user's: ARNs of DynamoDB tables, and nothing else."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.permissions import PolicyResource, plain_arn

_TABLE: Final = re.compile(
    r"arn:[\w-]+:dynamodb:[a-z0-9-]+:(?:\d{12}|x):table/[\w.-][\w.*?-]*(?:/index/[\w.*?-]+)?", re.ASCII
)


def _check(table: str | Reference) -> str | Reference:
    if isinstance(table, Reference):
        if (table.kind, table.attribute) != ("table", "arn"):
            raise ValueError(f"ref = {table.ref!r}, attribute = {table.attribute!r}: is no table")
    elif _TABLE.fullmatch(plain_arn(table)) is None:
        raise ValueError(
            "is no table of DynamoDB; write arn:<partition>:dynamodb:<region>:<account>:table/<name>, each part "
            "by its value or as ${AWS::...}"
        )
    return table


TableArn = Annotated[PolicyResource, AfterValidator(_check)]
"""The ARN of a table, whose name may end with `*`, or of its indexes; or a reference to a table of the stack."""
