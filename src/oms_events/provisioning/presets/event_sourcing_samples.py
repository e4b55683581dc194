"""What somebody tries first on a deployed event-sourced system: a command, a query, and how to send them."""

from __future__ import annotations

import json
import shlex
from typing import Final

_ACCOUNT: Final = "account-123"


def _text(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))


COMMAND: Final = _text(
    {
        "commandType": "CreateAccount",
        "aggregateId": _ACCOUNT,
        "commandId": "command-0001",
        "commandData": {"customerId": "customer-456", "accountType": "checking", "currency": "USD"},
    }
)
"""A command for the command handler; sent twice it has one effect, for its id is the same."""

QUERY: Final = _text({"queryType": "getAccountSummary", "accountId": _ACCOUNT})
"""A query for the query handler, on what the command made."""


def testing_instructions(
    *, region: str, command_handler: str, query_handler: str, event_store: str, dead_letters: str
) -> str:
    """The lines of the AWS CLI, version 2, that try the system, in their order."""
    key = shlex.quote(_text({":id": {"S": _ACCOUNT}}))
    return "\n".join(
        (
            "# 1. Send a command",
            _invoke(region, command_handler, COMMAND, "command.json"),
            "# 2. Look at the events that it led to",
            f"aws dynamodb query --region {region} --table-name {event_store} "
            f"--key-condition-expression 'AggregateId = :id' --expression-attribute-values {key}",
            "# 3. Ask for the account, once the projection has seen the events",
            _invoke(region, query_handler, QUERY, "query.json"),
            "# 4. See whether something was given up",
            f"aws sqs get-queue-attributes --region {region} --attribute-names ApproximateNumberOfMessages "
            f'--queue-url "$(aws sqs get-queue-url --region {region} --queue-name {dead_letters} '
            '--query QueueUrl --output text)"',
        )
    )


def _invoke(region: str, function: str, payload: str, answer: str) -> str:
    return (
        f"aws lambda invoke --region {region} --function-name {function} "
        f"--cli-binary-format raw-in-base64-out --payload {shlex.quote(payload)} {answer} && cat {answer}"
    )
