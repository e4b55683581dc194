"""The orchestrator as a Lambda function: zipped, deployed with the preset on the embedded emulator, started.

    python examples/triggers/deployed.py

On AWS the steps are lambda_package.py, an upload to S3, and `oms-events infra apply`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aioboto3

from oms_events.devstack import AwsEmulator, adapt, make_left_out, run_in_thread
from oms_events.provisioning import AwsConfig, CodeSpec, IngestionTriggersPreset, deploy, outputs, synthesize

HERE: Final = Path(__file__).parent
CODE_BUCKET: Final = "deployments"
CODE_KEY: Final = "orchestrator-1.zip"
PATIENCE: Final = 120.0
"""Seconds: the function's first start unpacks its zip."""


def build(output: Path) -> Path:
    """The function's zip, for the Python that runs this."""
    program = HERE.parent / "lambda_package.py"
    command = [sys.executable, str(program), str(HERE / "orchestrator.py"), "--local", "--output", str(output)]
    subprocess.run(command, check=True)
    return output


async def deploy_preset(code: Path) -> Mapping[str, Any]:
    # Endpoint, region and keys are found as AWS tools find them: in the environment.
    async with aioboto3.Session().client("s3") as s3:
        await s3.create_bucket(Bucket=CODE_BUCKET)
        await s3.upload_file(str(code), CODE_BUCKET, CODE_KEY)
    # [start:preset]
    preset = IngestionTriggersPreset(
        environment="dev",
        code=CodeSpec(s3_bucket=CODE_BUCKET, s3_key=CODE_KEY),
        handler="orchestrator.handler",
    )
    template = synthesize(preset.stack())
    # [end:preset]
    # What the emulator's CloudFormation does not take is made by its services' own calls.
    adapted = adapt(template.document)
    await deploy(replace(template, document=adapted.document), AwsConfig())
    await make_left_out(adapted, template.stack_name, AwsConfig())
    return await outputs(template.stack_name, AwsConfig())


class Ingestion:
    """The deployed preset: what starts it, and its queue of chunks."""

    def __init__(self, made: Mapping[str, Any], clients: Mapping[str, Any]) -> None:
        self._made = made
        self._clients = clients

    async def tell(self, source: str, detail_type: str, detail: Mapping[str, Any]) -> None:
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail)}
        answer = await self._clients["events"].put_events(Entries=[entry])
        assert not answer["FailedEntryCount"], answer

    async def put(self, key: str) -> None:
        await self._clients["s3"].put_object(Bucket=self._made["bucket_name"], Key=key, Body=b"{}")

    async def call(self, payload: Mapping[str, Any]) -> Any:
        """A manual start, as `oms-events trigger run --function` makes it."""
        answer = await self._clients["lambda"].invoke(
            FunctionName=self._made["function_name"], Payload=json.dumps(payload)
        )
        return json.loads(await answer["Payload"].read())

    async def chunks(self, count: int) -> Sequence[Any]:
        """The next chunks, as a worker gets them; fails when they do not come."""
        sqs, url = self._clients["sqs"], self._made["queue_urls"]["chunks"]
        found: list[Any] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                got = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                for message in got.get("Messages", ()):
                    found.append(json.loads(message["Body"]))
                    await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    async def metrics(self, count: int) -> Sequence[Any]:
        """What the function's log has for CloudWatch's metric `TriggerExecution`."""
        group = f"/aws/lambda/{self._made['function_name']}"
        async with asyncio.timeout(PATIENCE):
            while True:
                events = (await self._clients["logs"].filter_log_events(logGroupName=group))["events"]
                lines = [json.loads(event["message"]) for event in events if '"_aws"' in event["message"]]
                if len(found := [line for line in lines if "TriggerExecution" in line]) >= count:
                    return found
                await asyncio.sleep(0.1)


def show(title: str, chunks: Sequence[Any]) -> None:
    for chunk in chunks:
        print(f"{title}: chunk of {', '.join(chunk['symbols'])}, correlation id {chunk['correlation_id']}")


async def start_it(made: Mapping[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        session = aioboto3.Session()
        clients = {
            name: await stack.enter_async_context(session.client(name))
            for name in ("events", "lambda", "logs", "s3", "sqs")
        }
        ingestion = Ingestion(made, clients)
        # [start:starts]
        added = {"added_symbols": ["NVDA", "AMD"], "immediate_ingestion": True}
        await ingestion.tell("symbol.universe", "Universe Updated", added)
        show("event", await ingestion.chunks(1))

        await ingestion.put("market/prices/symbol=AAPL/1.json")
        show("object", await ingestion.chunks(1))

        manual = {"symbols": ["TSLA"], "period": "1d", "urgent": True, "correlation_id": "run-1"}
        for _ in range(2):
            answer = await ingestion.call(manual)
            print(f"call: {answer['statusCode']} {json.loads(answer['body'])['status']}")
        show("call", await ingestion.chunks(1))
        # [end:starts]
        for line in await ingestion.metrics(4):
            print(f"log: {line['TriggerType']} {line['Domain']} {line['Status']}, {line['correlation_id']}")


async def run(code: Path) -> None:
    await start_it(await deploy_preset(code))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, run_in_thread(AwsEmulator()) as emulator:
        os.environ.update(emulator.environment())
        asyncio.run(run(build(Path(folder) / "orchestrator.zip")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
