"""One spec of each kind, in Python; `infra_specs.toml` says the same, and both give the same template."""

from __future__ import annotations

from pathlib import Path

from oms_events import SpecError
from oms_events.provisioning import (
    AlarmSpec,
    AlarmWidget,
    ArchiveSpec,
    AutoscalingSpec,
    BucketSpec,
    CodeSpec,
    DashboardSpec,
    EndpointSpec,
    EventBusSpec,
    ExpressionSpec,
    FunctionSpec,
    IndexSpec,
    InputTransformerSpec,
    KeySpec,
    KeyUseSpec,
    LogGroupSpec,
    LogWidget,
    MetricSpec,
    MetricWidget,
    OidcTrust,
    PrincipalTrust,
    ProvisionedSpec,
    QueueSpec,
    RetryPolicySpec,
    RoleSpec,
    RuleSpec,
    ServiceTrust,
    StackSpec,
    StatementSpec,
    StreamSourceSpec,
    SubscriptionSpec,
    Suffixed,
    TableSpec,
    TargetSpec,
    TextWidget,
    TopicSpec,
    read_source,
    synthesize,
)

HERE = Path(__file__).parent

# [start:queues]
dead_letters = QueueSpec(name="shop-dlq", retention_seconds=1_209_600)
work = QueueSpec(name="shop-work", visibility_timeout=180, dead_letter=dead_letters.arn, max_receive_count=3)
by_order = QueueSpec(name="shop-by-order.fifo", fifo=True, content_based_deduplication=True)
# [end:queues]

# [start:topics]
key = KeySpec(
    name="shop",
    users=(KeyUseSpec(service="cloudwatch.amazonaws.com"), KeyUseSpec(service="sns.amazonaws.com")),
)
alerts = TopicSpec(
    name="shop-alerts",
    kms_key=key.arn,
    subscriptions=(
        SubscriptionSpec(protocol="email", endpoint="on-call@example.com"),
        SubscriptionSpec(protocol="sqs", endpoint=work.arn, raw=True),
    ),
)
# [end:topics]

# [start:tables]
orders = TableSpec(
    name="shop-orders",
    hash_key="customer",
    range_key="number",
    attribute_types={"number": "N"},
    indexes=(IndexSpec(name="by-status", hash_key="status", range_key="placed_at", projection="keys_only"),),
    ttl_attribute="expires_at",
    stream="new_image",
    billing=ProvisionedSpec(read=5, write=5, autoscaling=AutoscalingSpec(min=5, max=100)),
    deletion_protection=True,
)
# [end:tables]

# [start:events]
logs = LogGroupSpec(name="/aws/events/shop", retention_days=30)
bus = EventBusSpec(name="shop", allowed_accounts=("210987654321",), allowed_sources=("partner.orders",))
placed = RuleSpec(
    name="order-placed",
    bus=bus.reference("name"),
    pattern={
        "source": ["shop.orders"],
        "detail-type": ["Order Placed"],
        "detail": {"total": [{"numeric": [">", 0]}]},
    },
    targets=(
        TargetSpec(
            id="work",
            arn=work.arn,
            dead_letter=dead_letters.arn,
            retry_policy=RetryPolicySpec(maximum_retry_attempts=20, maximum_event_age_in_seconds=3600),
            input_transformer=InputTransformerSpec(
                paths={"number": "$.detail.number"}, template='{"order": <number>, "action": "pack"}'
            ),
        ),
        TargetSpec(id="by-order", arn=by_order.arn, message_group_id="orders"),
        TargetSpec(id="log", arn=logs.arn),
    ),
)
nightly = RuleSpec(
    name="shop-nightly",
    schedule="cron(0 3 * * ? *)",
    targets=(TargetSpec(id="work", arn=work.arn, input={"action": "tidy up"}),),
)
archive = ArchiveSpec(name="shop-archive", bus=bus.arn, pattern={"source": ["shop.orders"]}, retention_days=365)
# [end:events]

# [start:roles]
worker = RoleSpec(
    name="shop-worker",
    trust=(ServiceTrust(service="lambda.amazonaws.com"),),
    statements=(
        StatementSpec(
            actions=("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
            resources=(work.arn,),
            why="Lambda takes messages for the function",
        ),
        StatementSpec(
            actions=("dynamodb:GetItem", "dynamodb:UpdateItem"),
            resources=(orders.arn,),
            why="the state of an order",
        ),
        StatementSpec(
            actions=("dynamodb:Query",),
            resources=(Suffixed.of(orders.arn, "/index/*"),),
            why="orders by their state",
        ),
        StatementSpec(
            actions=("logs:CreateLogStream", "logs:PutLogEvents"),
            resources=(
                "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/lambda/shop-worker:*",
            ),
            why="its own log",
        ),
    ),
)
api = RoleSpec(
    name="shop-api",
    trust=(
        PrincipalTrust(principals=("123456789012",)),
        OidcTrust(
            provider="arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE",
            service_accounts=("shop/api",),
        ),
    ),
    statements=(
        StatementSpec(actions=("events:PutEvents",), resources=(bus.arn,), why="publish the shop's events"),
    ),
)
# [end:roles]

# [start:functions]
function = FunctionSpec(
    name="shop-worker",
    code=CodeSpec(s3_bucket="deployments-123456789012", s3_key="worker-2026-11-21.zip"),
    handler="worker.handler",
    role=worker.arn,
    timeout=30,
    environment={"ORDERS_TABLE": orders.reference("name")},
    sources=(StreamSourceSpec(source=work.arn, batch_size=10),),
)
# [end:functions]

# [start:network]
bucket = BucketSpec(
    name="shop-documents-${AWS::AccountId}-${AWS::Region}",
    key="documents",
    eventbridge=True,
    noncurrent_expiration_days=30,
)
endpoint = EndpointSpec(
    name="shop-events",
    service="events",
    vpc_id="vpc-0123456789abcdef0",
    subnet_ids=("subnet-0123456789abcdef0", "subnet-0123456789abcdef1"),
    security_group_ids=("sg-0123456789abcdef0",),
    actions=("events:PutEvents", "events:DescribeEventBus"),
    targets=(bus.arn,),
)
# [end:network]

# [start:watching]
failed = AlarmSpec(
    name="shop-failed-invocations",
    namespace="AWS/Events",
    metric_name="FailedInvocations",
    dimensions={"EventBusName": bus.reference("name"), "RuleName": placed.reference("name")},
    threshold=0,
    actions=(alerts.arn,),
)
share = AlarmSpec(
    name="shop-error-percent",
    metrics=(
        MetricSpec(
            id="errors",
            namespace="AWS/Lambda",
            metric_name="Errors",
            dimensions={"FunctionName": function.reference("name")},
        ),
        MetricSpec(
            id="calls",
            namespace="AWS/Lambda",
            metric_name="Invocations",
            dimensions={"FunctionName": function.reference("name")},
        ),
    ),
    expression="100 * errors / calls",
    label="percent of calls that failed",
    threshold=10,
    actions=(alerts.arn,),
)
dashboard = DashboardSpec(
    name="shop",
    widgets=(
        TextWidget(markdown="# The shop in ${AWS::Region}"),
        MetricWidget(
            title="Calls",
            width=12,
            metrics=share.metrics,
            expressions=(ExpressionSpec(expression="100 * errors / calls", label="percent"),),
        ),
        AlarmWidget(width=12, height=6, alarms=(failed.arn, share.arn)),
        LogWidget(log_groups=(logs.reference("name"),), query="fields @timestamp, detail.number | limit 20"),
    ),
)
# [end:watching]

# [start:stack]
stack = StackSpec(
    name="shop",
    description="The shop",
    tags={"team": "orders"},
    termination_protection=True,
    keys=(key,),
    roles=(worker, api),
    queues=(dead_letters, work, by_order),
    topics=(alerts,),
    log_groups=(logs,),
    buckets=(bucket,),
    tables=(orders,),
    functions=(function,),
    buses=(bus,),
    rules=(placed, nightly),
    archives=(archive,),
    endpoints=(endpoint,),
    alarms=(failed, share),
    dashboards=(dashboard,),
    outputs={
        "event_bus_arn": bus.arn,
        "queue_urls": {"work": work.reference("url"), "dead_letters": dead_letters.reference("url")},
    },
)
template = synthesize(stack)
# [end:stack]


# [start:wrong]
def refused() -> None:
    try:
        RuleSpec(name="order placed", schedule="cron(0 3 * * *)", targets=(TargetSpec(id="work", arn=work.arn),))
    except SpecError as error:
        print(error.subject, *error.problems, sep="\n- ")


# [end:wrong]


def main() -> None:
    print(len(template.resources), "resources,", len(template.body), "bytes")
    from_file = synthesize(read_source(str(HERE / "infra_specs.toml")))
    print("the file gives the same bytes:", from_file.body == template.body)
    refused()


if __name__ == "__main__":
    main()
