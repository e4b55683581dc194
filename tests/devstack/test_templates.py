from __future__ import annotations

from tests.provisioning.embedded import deployed, echo_code, queue_messages
from oms_events.devstack import AwsEmulator
from oms_events.provisioning.template import Template
import json, pytest

async def test_x(oms_aws_emulator: AwsEmulator) -> None:
    doc = {"Metadata":{"OmsEvents":{"Outputs":{"archive_arn":"Ar"}}},"Resources":{
        "Bus":{"Type":"AWS::Events::EventBus","Properties":{"Name":"bus","DeadLetterConfig":{"Arn":{"Fn::GetAtt":["Queue","Arn"]}}}},
        "Queue":{"Type":"AWS::SQS::Queue","Properties":{"QueueName":"q"}},
        "Archive":{"Type":"AWS::Events::Archive","DeletionPolicy":"Delete","UpdateReplacePolicy":"Retain","Properties":{"ArchiveName":"arch","SourceArn":{"Fn::GetAtt":["Bus","Arn"]},"EventPattern":{"source":["a"]},"RetentionDays":3}},
        "Policy":{"Type":"AWS::Events::EventBusPolicy","Properties":{"EventBusName":{"Ref":"Bus"},"StatementId":"s","Statement":{"Sid":"s","Effect":"Allow","Principal":{"AWS":{"Fn::Sub":"arn:${AWS::Partition}:iam::123456789012:root"}},"Action":"events:PutEvents","Resource":{"Fn::GetAtt":["Bus","Arn"]}}}},
        "Role":{"Type":"AWS::IAM::Role","Properties":{"RoleName":"r","AssumeRolePolicyDocument":{"Version":"2012-10-17","Statement":[]}}},
        "F":{"Type":"AWS::Lambda::Function","Properties":{"FunctionName":"f","Runtime":"python3.13","Handler":"index.handler","Role":{"Fn::GetAtt":["Role","Arn"]},"Code":{"ZipFile":echo_code("q")},"ReservedConcurrentExecutions":1}},
        },
        "Outputs":{"Ar":{"Value":{"Fn::GetAtt":["Archive","Arn"]}}}}
    async with deployed(Template("st", doc), oms_aws_emulator) as stack:
        print([str(x) for x in stack.adapted.left_out], stack.outputs, await stack.physical_ids())
        ev = await stack.client("events")
        print(await ev.describe_archive(ArchiveName="arch"), await ev.describe_event_bus(Name="bus"))
        la = await stack.client("lambda"); await la.invoke(FunctionName="f", Payload=b'{"x":1}')
        sqs = await stack.client("sqs")
        print(await queue_messages(sqs, (await stack.physical_ids())["Queue"]), await la.get_function_concurrency(FunctionName="f"))
        d2=json.loads(json.dumps(doc)); d2["Resources"]["Archive"]["Properties"]["RetentionDays"]=9; del d2["Resources"]["Policy"]; del d2["Resources"]["Bus"]["Properties"]["DeadLetterConfig"]
        await stack.redeploy(Template("st", d2))
        print(await ev.describe_archive(ArchiveName="arch"), await ev.describe_event_bus(Name="bus"))
