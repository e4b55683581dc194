"""Pipelines on AWS, from a file and environment variables, and from those of a function; AWS is not asked."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

# [start:imports]
from prometheus_client import CollectorRegistry

from oms_events import ConfigurationError
from oms_events.instrumentation import Hook, LoggingHook, PrometheusHook
from oms_events.settings import Settings
from oms_events.triggers import IngestionEnvironment, LambdaHandler, create_ingestion_pipeline

# [end:imports]

HERE = Path(__file__).parent
QUEUES = "https://sqs.eu-central-1.amazonaws.com/111122223333"
OF_THE_FUNCTION = {
    "ENVIRONMENT": "dev",
    "QUEUE_URL": f"{QUEUES}/dev-ingestion-chunks",
    "DELAY_QUEUE_URL": f"{QUEUES}/dev-ingestion-delay.fifo",
    "DEAD_LETTER_QUEUE_URL": f"{QUEUES}/dev-ingestion-dlq",
    "IDEMPOTENCY_TABLE": "dev-ingestion-idempotency",
    "BREAKER_TABLE": "dev-ingestion-breaker",
    "RATE_TABLE": "dev-ingestion-rate",
    "EVENT_BUS_NAME": "custom-ingestion-bus",
    "AWS_REGION": "eu-central-1",
}
INVALID = {"symbols": ["AAPL"], "table_name": "prices-1"}


async def in_a_service(env: Mapping[str, str]) -> None:
    # [start:hooks]
    registry = CollectorRegistry()
    hooks: list[Hook] = [LoggingHook(), PrometheusHook(registry)]
    # [end:hooks]
    # [start:settings]
    settings = Settings.from_file(HERE / "triggers.toml", env=env)  # env is os.environ unless given
    pipeline = settings.create_trigger_pipeline(hooks=hooks)
    # [end:settings]
    print((await pipeline.handle(INVALID)).body)


# [start:locally]
def try_it(handler: LambdaHandler, file: Path) -> None:
    with closing(handler):  # ends the event loop and the connections
        print(handler(json.loads(file.read_text(encoding="utf-8"))))


# [end:locally]


def on_lambda(env: Mapping[str, str]) -> None:
    # [start:bus]
    bus_sender = IngestionEnvironment.read(env).create_bus_sender()  # env is os.environ there
    handler = create_ingestion_pipeline(env, handler=bus_sender).lambda_handler
    # [end:bus]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "event.json"
        file.write_text(json.dumps(INVALID), encoding="utf-8")
        try_it(handler, file)


def main() -> None:
    try:
        IngestionEnvironment.read({**OF_THE_FUNCTION, "ENVIRONMENT": "production", "RATE_TABLE": ""})
    except ConfigurationError as error:
        print(*error.problems, sep="\n")
    asyncio.run(in_a_service({"OMS_TRIGGERS_CHUNK_SIZE": "20"}))
    on_lambda(OF_THE_FUNCTION)


if __name__ == "__main__":
    main()
