"""Connections to NATS and AWS: credentials, TLS, streams and buses. Runs against the embedded stack."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aioboto3
import nats

from oms_events import (
    EventBridgeConfig,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    StreamSpec,
    build_event,
    create_oms_multi_platform_router,
)
from oms_events.devstack import AwsEmulator, DevStack, NatsServer
from oms_events.publishers.eventbridge import EventBridgePublisher
from oms_events.publishers.jetstream import ConnectionState, JetStreamPublisher, StreamPolicy

# [start:nats-credentials]
by_creds_file = NatsConfig(
    servers=("tls://nats-1.example.com:4222", "tls://nats-2.example.com:4222"),
    credentials_file=Path("/etc/oms/oms.creds"),
)
by_password = NatsConfig(servers=("nats://nats.example.com:4222",), user="oms", password="from your vault")
by_client_certificate = NatsConfig(
    servers=("tls://nats.example.com:4222",),
    ca_file=Path("/etc/oms/ca.pem"),
    cert_file=Path("/etc/oms/oms.pem"),
    key_file=Path("/etc/oms/oms.key"),
)
# [end:nats-credentials]

# [start:nats-stream]
options = JetStreamOptions(
    stream=StreamSpec(
        name="OMS",
        subjects=("oms.>",),
        replicas=1,  # 3 in a cluster
        max_age=7 * 24 * 3600.0,
        duplicate_window=300.0,
    ),
    policy=StreamPolicy.UPDATE,
)
# [end:nats-stream]

# [start:nats-subject]
by_tenant = JetStreamOptions(subject="events.{tenant|shared}.{type}", strip_prefix="com.foundry.", stream="EVENTS")
# [end:nats-subject]


# [start:nats-state]
def heard(state: ConnectionState, text: str) -> None:
    print(f"NATS is {state}: {text}")


# [end:nats-state]


# [start:nats-borrowed]
async def with_a_client_of_your_own(url: str, user: str, password: str) -> None:
    client = await nats.connect(url, user=user, password=password)
    try:
        async with create_oms_multi_platform_router(nats_publisher=client, jetstream_options=options) as router:
            await router.publish_event(build_event("com.foundry.oms.schema.created", "/oms/main", {}))
    finally:
        await client.close()


# [end:nats-borrowed]

# [start:aws-credentials]
by_chain = EventBridgeConfig(event_bus_name="oms-events", aws_region="eu-central-1")
by_profile = EventBridgeConfig(event_bus_name="oms-events", profile_name="staging")
by_role = EventBridgeConfig(
    event_bus_name="arn:aws:events:eu-central-1:111122223333:event-bus/oms-events",
    aws_region="eu-central-1",
    role_arn="arn:aws:iam::111122223333:role/oms-publisher",
    role_external_id="oms",
)
# [end:aws-credentials]

# [start:aws-network]
through_a_vpc_endpoint = EventBridgeConfig(
    event_bus_name="oms-events",
    aws_region="eu-central-1",
    endpoint_url="https://vpce-0abc-1def.events.eu-central-1.vpce.amazonaws.com",
)
through_a_proxy = EventBridgeConfig(
    event_bus_name="oms-events",
    aws_region="eu-central-1",
    proxies={"https": "http://proxy.example.com:3128"},
    ca_bundle="/etc/oms/proxy-ca.pem",
)
# [end:aws-network]


# [start:aws-borrowed]
async def with_a_session_of_your_own(session: aioboto3.Session, config: EventBridgeConfig) -> None:
    publisher = EventBridgePublisher(config, session=session)
    async with EventRouter({"eventbridge": publisher}) as router:
        await router.publish_event(build_event("com.foundry.oms.schema.created", "/oms/main", {}))


# [end:aws-borrowed]


# [start:missing-bus]
async def a_bus_that_does_not_exist(aws: AwsEmulator) -> None:
    config = EventBridgeConfig(
        event_bus_name="no-such-bus",
        aws_region=aws.region,
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=aws.access_key,
        aws_secret_access_key=aws.secret_key,
    )
    async with create_oms_multi_platform_router(eventbridge_config=config) as router:
        results = await router.publish_event(build_event("com.foundry.oms.schema.created", "/oms/main", {}))
        print(results["eventbridge"].outcome, results["eventbridge"].error)


# [end:missing-bus]


async def main() -> None:
    print(by_creds_file, by_password, by_client_certificate, by_tenant, sep="\n")
    for config in (by_chain, by_profile, by_role, through_a_vpc_endpoint, through_a_proxy):
        print(config.credentials_kind)
    user, password = "oms", "secret"
    async with DevStack(nats=NatsServer(user=user, password=password)) as stack:
        here = NatsConfig(servers=(stack.nats.url,), user=user, password=password)
        # [start:nats-publisher]
        nats_publisher = JetStreamPublisher(here, options=options, on_state=heard)
        # [end:nats-publisher]
        async with EventRouter({"nats": nats_publisher}) as router:
            results = await router.publish_event(build_event("com.foundry.oms.schema.created", "/oms/main", {}))
            print(results["nats"].receipt)
        await with_a_client_of_your_own(stack.nats.url, user, password)
        await a_bus_that_does_not_exist(stack.aws)
        session = aioboto3.Session(
            region_name=stack.aws.region,
            aws_access_key_id=stack.aws.access_key,
            aws_secret_access_key=stack.aws.secret_key,
        )
        bus = EventBridgeConfig(event_bus_name="default", endpoint_url=stack.aws.endpoint_url)
        await with_a_session_of_your_own(session, bus)


if __name__ == "__main__":
    asyncio.run(main())
