"""What is known of IAM's actions: which of them know no resource, and slips in their prefixes.

Both from the Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WITHOUT_RESOURCE: Final = frozenset(
    (
        "cloudformation:ListStacks",
        "cloudformation:ValidateTemplate",
        "cloudwatch:GetMetricData",
        "cloudwatch:GetMetricStatistics",
        "cloudwatch:ListDashboards",
        "cloudwatch:ListMetrics",
        "cloudwatch:PutMetricData",
        "dynamodb:DescribeEndpoints",
        "dynamodb:DescribeLimits",
        "dynamodb:ListStreams",
        "dynamodb:ListTables",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcEndpoints",
        "ec2:DescribeVpcs",
        "ecr:GetAuthorizationToken",
        "events:ListArchives",
        "events:ListEventBuses",
        "events:ListReplays",
        "events:ListRuleNamesByTarget",
        "events:TestEventPattern",
        "iam:SimulateCustomPolicy",
        "kms:GenerateRandom",
        "kms:ListAliases",
        "kms:ListKeys",
        "lambda:GetAccountSettings",
        "lambda:ListEventSourceMappings",
        "lambda:ListFunctions",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "logs:PutResourcePolicy",
        "s3:ListAllMyBuckets",
        "sns:ListTopics",
        "sqs:ListQueues",
        "ssm:DescribeParameters",
        "sts:GetCallerIdentity",
        "tag:GetResources",
        "textract:DetectDocumentText",
        "xray:BatchGetTraces",
        "xray:GetSamplingRules",
        "xray:GetSamplingStatisticSummaries",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    )
)
"""Actions that IAM allows for all resources or for none; the calls of this library and of what it is used with."""

SLIPS: Final[Mapping[str, str]] = {
    "cloudwatch-logs": "logs",
    "cloudwatchlogs": "logs",
    "ddb": "dynamodb",
    "dynamo": "dynamodb",
    "dynamodbstreams": "dynamodb",
    "event": "events",
    "eventbridge": "events",
    "function": "lambda",
    "log": "logs",
    "parameterstore": "ssm",
    "queue": "sqs",
    "secretmanager": "secretsmanager",
    "step-functions": "states",
    "stepfunctions": "states",
    "topic": "sns",
    "x-ray": "xray",
}
"""What people write for a service, to its prefix."""
