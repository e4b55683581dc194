"""What is known of IAM's actions: their services, and which of them know no resource.

Both from the Service Authorization Reference.
"""

from __future__ import annotations

from typing import Final

WITHOUT_RESOURCE: Final = frozenset(
    (
        "cloudformation:ListStacks",
        "cloudformation:ValidateTemplate",
        "cloudwatch:GetMetricData",
        "cloudwatch:GetMetricStatistics",
        "cloudwatch:ListMetrics",
        "cloudwatch:PutMetricData",
        "dynamodb:DescribeEndpoints",
        "dynamodb:DescribeLimits",
        "dynamodb:ListStreams",
        "dynamodb:ListTables",
        "ec2:DescribeNetworkInterfaces",
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
        "xray:GetSamplingRules",
        "xray:GetSamplingStatisticSummaries",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    )
)
"""Actions that IAM allows for all resources or for none; the calls of this library and of what it is used with."""

SERVICES: Final = frozenset(
    (
        "account", "acm", "aoss", "apigateway", "appconfig", "application-autoscaling", "appsync", "aps",
        "athena", "autoscaling", "batch", "bedrock", "bedrock-agentcore", "cloudformation", "cloudfront",
        "cloudtrail", "cloudwatch", "codebuild", "cognito-idp", "comprehend", "datasync", "dax", "dms",
        "dynamodb", "ec2", "ecr", "ecs", "eks", "elasticache", "elasticfilesystem", "elasticloadbalancing",
        "elasticmapreduce", "es", "events", "execute-api", "firehose", "forecast", "geo", "glue", "iam", "iot",
        "kafka", "kafka-cluster", "kinesis", "kinesisanalytics", "kms", "lakeformation", "lambda", "logs",
        "mediaconvert", "mq", "opensearch", "organizations", "personalize", "pipes", "quicksight", "rds",
        "rds-data", "rds-db", "redshift", "redshift-data", "rekognition", "resource-groups", "route53", "s3",
        "s3express", "s3tables", "sagemaker", "scheduler", "schemas", "sdb", "secretsmanager", "servicediscovery",
        "servicequotas", "ses", "sns", "sqs", "ssm", "ssmmessages", "states", "sts", "synthetics", "tag",
        "textract", "timestream", "transfer", "translate", "vpc-lattice", "wafv2", "workmail", "xray"
    )
)  # fmt: skip
"""The prefixes of the services that an application calls; another is taken for a slip of the pen."""
