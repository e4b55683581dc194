from __future__ import annotations

from pathlib import Path

import pytest

from oms_events.errors import ConfigurationError
from oms_events.eventstore.registry import EventRegistry
from oms_events.publishers.memory import MemoryPublisher
from oms_events.settings import Settings
from oms_events.triggers.environment import IngestionEnvironment
from oms_events.triggers.start import Start

TOML = """
add_default_rules = false

[nats]
servers = ["nats://file:4222"]
user = "file-user"
password = "file-secret"

[jetstream]
stream = "OMS"

[eventbridge]
event_bus_name = "file-bus"
aws_region = "eu-west-1"

[router]
timeout = 7.5

[[rules]]
event_type_pattern = '.*\\.schema\\..*'
platforms = ["eventbridge", "nats"]
strategy = "failover"
name = "mine"
"""

YAML = """
add_default_rules: false
nats:
  servers: ["nats://file:4222"]
  user: file-user
  password: file-secret
jetstream: {stream: OMS}
eventbridge: {event_bus_name: file-bus, aws_region: eu-west-1}
router: {timeout: 7.5}
rules:
  - event_type_pattern: '.*\\.schema\\..*'
    platforms: [eventbridge, nats]
    strategy: failover
    name: mine
"""

ALL_VARIABLES = {
    "OMS_NATS_URL": "nats://a:4222, tls://b:4222,c:4222",
    "OMS_NATS_USER": "ann",
    "OMS_NATS_PASSWORD": "env-secret",
    "OMS_EVENTBRIDGE_BUS_NAME": "env-bus",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "eu-central-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:2",
}


def write(folder: Path, text: str, name: str = "oms.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems_of(caught: pytest.ExceptionInfo[ConfigurationError]) -> list[str]:
    return list(caught.value.problems)


def test_environment_describes_both_platforms() -> None:
    settings = Settings.from_environment(ALL_VARIABLES)
    assert settings.nats is not None
    assert settings.nats.servers == ("nats://a:4222", "tls://b:4222", "nats://c:4222")
    assert settings.nats.user == "ann"
    assert settings.nats.password is not None
    assert settings.nats.password.get_secret_value() == "env-secret"
    assert settings.eventbridge is not None
    assert settings.eventbridge.event_bus_name == "env-bus"
    assert settings.eventbridge.aws_region == "eu-central-1"
    assert settings.eventbridge.endpoint_url == "http://127.0.0.1:2"


def test_the_second_names_of_variables_hold_when_the_first_are_not_set() -> None:
    env = {**ALL_VARIABLES, "AWS_REGION": "", "AWS_ENDPOINT_URL_EVENTBRIDGE": ""}
    settings = Settings.from_environment(env)
    assert settings.eventbridge is not None
    assert (settings.eventbridge.aws_region, settings.eventbridge.endpoint_url) == (
        "us-east-1",
        "http://127.0.0.1:1",
    )


@pytest.mark.parametrize(
    ("env", "platforms"),
    [
        ({}, set()),
        ({"AWS_REGION": "eu-west-1", "OMS_NATS_TOKEN": "t"}, set()),
        ({"OMS_NATS_URL": ""}, set()),
        ({"OMS_NATS_URL": "nats://a"}, {"nats"}),
        ({"OMS_ENABLE_NATS": "yes"}, {"nats"}),
        ({"OMS_NATS_URL": "nats://a", "OMS_ENABLE_NATS": "False"}, set()),
        ({"OMS_EVENTBRIDGE_BUS_NAME": "b"}, {"eventbridge"}),
        ({"OMS_EVENTBRIDGE_BUS_NAME": "b", "OMS_ENABLE_EVENTBRIDGE": "1"}, {"eventbridge"}),
        ({"OMS_EVENTBRIDGE_BUS_NAME": "b", "OMS_ENABLE_EVENTBRIDGE": "off"}, set()),
    ],
)
def test_platforms_are_on_when_addressed_or_switched_on(env: dict[str, str], platforms: set[str]) -> None:
    settings = Settings.from_environment(env)
    assert {name for name in ("nats", "eventbridge") if getattr(settings, name) is not None} == platforms


def test_all_problems_of_the_environment_come_together_and_name_variables(tmp_path: Path) -> None:
    env = {
        "OMS_NATS_URL": "http://a",
        "OMS_ENABLE_NATS": "maybe",
        "OMS_ENABLE_EVENTBRIDGE": "true",
        "OMS_RULES_FILE": str(tmp_path / "none.toml"),
    }
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(env)
    assert caught.value.subject == "environment"
    problems = problems_of(caught)
    for start, remedy in [
        ("OMS_NATS_URL", "nats://host:4222"),
        ("OMS_ENABLE_NATS = 'maybe'", "true or false"),
        ("OMS_EVENTBRIDGE_BUS_NAME is not set", "name the bus"),
        ("OMS_RULES_FILE = ", "cannot be read"),
    ]:
        assert any(problem.startswith(start) and remedy in problem for problem in problems), problems
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"OMS_NATS_URL": "nats://a", "OMS_NATS_PASSWORD": "hunter2"}, "OMS_NATS_PASSWORD"),
        ({"OMS_NATS_URL": "nats://a", "OMS_NATS_TOKEN": "hunter2", "OMS_NATS_USER": "u"}, "OMS_NATS_TOKEN"),
        ({"OMS_NATS_URL": "http://u:hunter2@a:4222"}, "OMS_NATS_URL"),
        ({"OMS_NATS_URL": "u:hunter2@a:4222,u:hunter3@b"}, "OMS_NATS_URL"),
        (
            {"OMS_EVENTBRIDGE_BUS_NAME": "b", "AWS_ENDPOINT_URL": "http://u:hun@ter/hunter2@a"},
            "AWS_ENDPOINT_URL",
        ),
    ],
)
def test_errors_name_the_variable_and_show_no_secret(env: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        Settings.from_environment(env)
    assert "hunter" not in str(caught.value)
    assert "hunter" not in repr(caught.value)


def test_settings_show_no_secret() -> None:
    settings = Settings.from_environment(
        {**ALL_VARIABLES, "OMS_NATS_URL": "nats://u:hunter2@a"} | {"OMS_NATS_USER": "", "OMS_NATS_PASSWORD": ""}
    )
    assert settings.nats is not None
    assert settings.nats.password is not None
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


@pytest.mark.parametrize(("text", "name"), [(TOML, "oms.toml"), (YAML, "oms.yaml"), (YAML, "OMS.YML")])
def test_one_file_describes_a_whole_router(tmp_path: Path, text: str, name: str) -> None:
    settings = Settings.from_file(write(tmp_path, text, name), env={})
    assert settings.nats is not None
    assert (settings.nats.servers, settings.nats.user) == (("nats://file:4222",), "file-user")
    assert settings.jetstream.stream == "OMS"
    assert settings.eventbridge is not None
    assert settings.eventbridge.event_bus_name == "file-bus"
    assert settings.router.timeout == 7.5
    assert settings.add_default_rules is False
    (rule,) = settings.rules
    assert (rule.name, rule.platforms, rule.priority) == ("mine", ("eventbridge", "nats"), 500)


def test_the_environment_holds_where_both_say_something(tmp_path: Path) -> None:
    rules = write(tmp_path, "[[rules]]\nevent_type_pattern = '.*'\nplatforms = ['nats']\n", "rules.toml")
    env = {
        "OMS_NATS_URL": "nats://env:4222",
        "OMS_NATS_PASSWORD": "env-secret",
        "OMS_ENABLE_EVENTBRIDGE": "false",
        "OMS_RULES_FILE": str(rules),
    }
    settings = Settings.from_file(write(tmp_path, TOML), env=env)
    assert settings.nats is not None
    assert (settings.nats.servers, settings.nats.user) == (("nats://env:4222",), "file-user")
    assert settings.nats.password is not None
    assert settings.nats.password.get_secret_value() == "env-secret"
    assert settings.eventbridge is None
    assert [rule.name for rule in settings.rules] == [".*"]


def test_options_for_jetstream_mean_that_nats_is_wanted(tmp_path: Path) -> None:
    settings = Settings.from_file(write(tmp_path, "[jetstream]\nstream = 'OMS'\n"), env={})
    assert settings.nats is not None
    assert settings.nats.servers == ("nats://127.0.0.1:4222",)


def test_all_problems_of_a_file_come_together(tmp_path: Path) -> None:
    text = """
        colour = "red"
        add_default_rules = "perhaps"
        eventbridge = 5
        [nats]
        server = "nats://a"
        password = "hunter2"
        [jetstream]
        max_pending = 0
        [router]
        timeout = -1
        [[rules]]
        event_type_pattern = "("
        platforms = []
    """
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_file(write(tmp_path, text), env={"OMS_ENABLE_NATS": "perhaps"})
    assert caught.value.subject == str(tmp_path / "oms.toml")
    problems = problems_of(caught)
    for part in (
        "unknown field 'colour'",
        "add_default_rules = 'perhaps'",
        "eventbridge is int",
        "nats: unknown field 'server'",
        "jetstream.max_pending = 0",
        "router.timeout = -1",
        "event_type_pattern",
        "no platform",
        "OMS_ENABLE_NATS = 'perhaps'",
    ):
        assert any(part in problem for problem in problems), (part, problems)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("oms.ini", b"", "unknown kind of file"),
        ("oms.toml", b"= 1", "is no TOML"),
        ("oms.toml", b"\xff\xfe", "cannot be read"),
        ("oms.yaml", b"a: [", "is no YAML"),
        ("oms.yaml", b"- 1", "write its fields by name"),
        ("oms.yaml", b"nats: {1: 2}", "nats is dict; write its fields by name"),
        ("oms.yaml", b"rules: 5", "write a list of rules"),
    ],
)
def test_a_file_that_is_none_says_why(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        Settings.from_file(path, env={})
    assert caught.value.subject == str(path)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.from_file(tmp_path / "none.toml", env={})


async def test_settings_make_a_router_with_their_rules(tmp_path: Path) -> None:
    settings = Settings.from_file(
        write(tmp_path, TOML.partition("[nats]")[0] + TOML[TOML.index("[router]") :]), env={}
    )
    router = settings.create_router(publishers={"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()})
    async with router:
        status = router.get_platform_status()
    assert status["health_summary"]["healthy_platforms"] == 2
    assert [rule.name for rule in router.routing_rules] == ["mine"]


OUTBOX = """
[outbox]
table_name = "file-outbox"
commit_timeout = 30.0

[outbox.claim_check]
bucket = "large-events"

[processor]
after_dead_letter = "hold"
poll_ceiling = 5
"""


def test_the_environment_describes_an_outbox() -> None:
    env = {
        "OMS_OUTBOX_TABLE": "env-outbox",
        "OMS_OUTBOX_BUCKETS": "16",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:2",
        "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:3",
    }
    outbox = Settings.from_environment(env).outbox
    assert outbox is not None
    assert (outbox.table_name, outbox.buckets) == ("env-outbox", 16)
    assert (outbox.aws_region, outbox.endpoint_url) == ("eu-central-1", "http://127.0.0.1:2")
    general = Settings.from_environment({**env, "AWS_ENDPOINT_URL_DYNAMODB": ""}).outbox
    assert general is not None
    assert general.endpoint_url == "http://127.0.0.1:1"


@pytest.mark.parametrize("env", [{}, {"OMS_OUTBOX_TABLE": ""}, {"OMS_OUTBOX_BUCKETS": "4", "AWS_REGION": "r"}])
def test_without_a_table_there_is_no_outbox(env: dict[str, str]) -> None:
    settings = Settings.from_environment(env)
    assert settings.outbox is None
    with pytest.raises(ConfigurationError, match="OMS_OUTBOX_TABLE"):
        settings.create_outbox()


def test_a_file_describes_an_outbox_and_its_processor_under_the_environment(tmp_path: Path) -> None:
    settings = Settings.from_file(write(tmp_path, OUTBOX), env={"OMS_OUTBOX_TABLE": "env-outbox"})
    assert settings.outbox is not None
    assert (settings.outbox.table_name, settings.outbox.commit_timeout) == ("env-outbox", 30.0)
    assert settings.outbox.claim_check is not None
    assert settings.outbox.claim_check.bucket == "large-events"
    assert (settings.processor.after_dead_letter, settings.processor.poll_ceiling) == ("hold", 5.0)
    assert settings.create_outbox().store.table == "env-outbox"


def test_problems_of_the_outbox_name_the_variable_or_the_section(tmp_path: Path) -> None:
    text = "[outbox]\ntable = 'a'\n[processor]\nlease = 2\n"
    env = {"OMS_OUTBOX_TABLE": "no table!", "OMS_OUTBOX_BUCKETS": "many"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_file(write(tmp_path, text), env=env)
    problems = problems_of(caught)
    for start, part in [
        ("OMS_OUTBOX_TABLE: table_name = 'no table!'", "pattern"),
        ("OMS_OUTBOX_BUCKETS: buckets = 'many'", "integer"),
        ("outbox", "unknown field 'table'"),
        ("processor.lease", "too short for heartbeat"),
    ]:
        assert any(problem.startswith(start) and part in problem for problem in problems), (start, problems)


EVENT_STORE = """
[event_store]
table_name = "file-events"
connections = 8

[snapshots]
table_name = "file-snapshots"

[projections]
read_model_table = "file-rows"
checkpoint_table = "file-checkpoints"
"""


def test_the_environment_describes_an_event_store_and_its_tables() -> None:
    env = {
        "OMS_EVENT_STORE_TABLE": "env-events",
        "OMS_EVENT_STORE_SOURCE": "shop",
        "OMS_SNAPSHOT_TABLE": "env-snapshots",
        "OMS_READ_MODEL_TABLE": "env-rows",
        "OMS_CHECKPOINT_TABLE": "env-checkpoints",
        "OMS_PERSONAL_KEYS_TABLE": "env-keys",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:2",
    }
    settings = Settings.from_environment(env)
    store, snapshots, projections = settings.event_store, settings.snapshots, settings.projections
    assert store is not None
    assert snapshots is not None
    assert projections is not None
    assert (store.table_name, store.source, snapshots.table_name) == ("env-events", "shop", "env-snapshots")
    assert (projections.read_model_table, projections.checkpoint_table) == ("env-rows", "env-checkpoints")
    keys = settings.personal_keys
    assert keys is not None
    assert keys.table_name == "env-keys"
    for config in (store, snapshots, projections, keys):
        assert (config.aws_region, config.endpoint_url) == ("eu-central-1", "http://127.0.0.1:2")


def test_the_variables_of_the_preset_are_understood_and_ours_go_before_them() -> None:
    env = {
        "EVENT_STORE_TABLE": "events",
        "SNAPSHOT_TABLE": "snapshots",
        "READ_MODEL_TABLE": "rows",
        "CHECKPOINT_TABLE": "checkpoints",
        "OMS_SNAPSHOT_TABLE": "our-snapshots",
    }
    settings = Settings.from_environment(env)
    assert settings.event_store is not None
    assert settings.event_store.table_name == "events"
    assert settings.snapshots is not None
    assert settings.snapshots.table_name == "our-snapshots"
    assert settings.projections is not None
    assert (settings.projections.read_model_table, settings.projections.checkpoint_table) == (
        "rows",
        "checkpoints",
    )


@pytest.mark.parametrize("env", [{}, {"OMS_EVENT_STORE_TABLE": ""}, {"OMS_EVENT_STORE_SOURCE": "shop"}])
def test_without_a_table_there_is_no_event_store(env: dict[str, str]) -> None:
    settings = Settings.from_environment({**env, "AWS_REGION": "r"})
    assert (settings.event_store, settings.snapshots, settings.projections) == (None, None, None)
    for create, variable in [
        (settings.create_event_store, r"OMS_EVENT_STORE_TABLE.*\[event_store\]"),
        (settings.create_snapshot_store, r"OMS_SNAPSHOT_TABLE.*\[snapshots\]"),
        (settings.create_read_models, r"OMS_READ_MODEL_TABLE and OMS_CHECKPOINT_TABLE.*\[projections\]"),
        (settings.create_personal_keys, r"OMS_PERSONAL_KEYS_TABLE.*\[personal_keys\]"),
    ]:
        with pytest.raises(ConfigurationError, match=variable):
            create()


def test_a_file_describes_an_event_store_under_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, EVENT_STORE)
    settings = Settings.from_file(
        path, env={"OMS_EVENT_STORE_TABLE": "env-events", "OMS_READ_MODEL_TABLE": "rows"}
    )
    assert settings.event_store is not None
    assert (settings.event_store.table_name, settings.event_store.connections) == ("env-events", 8)
    assert settings.projections is not None
    assert (settings.projections.read_model_table, settings.projections.checkpoint_table) == (
        "rows",
        "file-checkpoints",
    )
    registry = EventRegistry()
    store = settings.create_event_store(registry=registry)
    assert (store.table.name, store.registry) == ("env-events", registry)
    assert settings.create_snapshot_store().name == "file-snapshots"
    settings.create_read_models()


def test_problems_of_the_event_store_name_the_variable_or_the_section(tmp_path: Path) -> None:
    text = "[event_store]\ntable_nam = 'a'\n[snapshots]\ntable_name = 'no table!'\n"
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_file(write(tmp_path, text), env={"OMS_READ_MODEL_TABLE": "rows"})
    problems = problems_of(caught)
    for start, part in [
        ("event_store", "unknown field 'table_nam'; did you mean 'table_name'?"),
        ("event_store", "field 'table_name' is missing; give it a value (variable OMS_EVENT_STORE_TABLE)"),
        ("snapshots.table_name = 'no table!'", "pattern"),
        ("projections (OMS_READ_MODEL_TABLE)", "is missing; give it a value (variable OMS_CHECKPOINT_TABLE)"),
    ]:
        assert any(problem.startswith(start) and part in problem for problem in problems), (start, problems)


# ---------------------------------------------------------------------- triggers

TRIGGERS = """
[triggers]
queue_url = "https://sqs.eu-central-1.amazonaws.com/111122223333/chunks"
rate_table = "file-rates"
aws_region = "eu-central-1"

[triggers.config]
environment = "prod"
domains = ["market"]

[triggers.config.quotas]
manual = { limit = 3, window = 60 }
"""


def test_a_file_describes_triggers_under_the_environment(tmp_path: Path) -> None:
    env = {"OMS_TRIGGERS_RATE_TABLE": "env-rates", "OMS_TRIGGERS_CHUNK_SIZE": "9", "RATE_TABLE": "of-a-function"}
    settings = Settings.from_file(write(tmp_path, TRIGGERS), env=env)
    triggers = settings.triggers
    assert triggers is not None
    assert (triggers.rate_table, triggers.breaker_table, triggers.aws_region) == (
        "env-rates",
        None,
        "eu-central-1",
    )
    assert (triggers.config.environment, triggers.config.options.chunk_size) == ("prod", 9)
    assert (triggers.config.domains, triggers.config.quotas["manual"].limit) == ({"market"}, 3)
    assert callable(settings.create_trigger_pipeline().lambda_handler)
    assert Settings.from_environment({"RATE_TABLE": "of-a-function", "ENVIRONMENT": "production"}).triggers is None


async def test_triggers_without_tables_or_a_queue_take_a_handler_of_yours() -> None:
    with pytest.raises(ConfigurationError, match=r"OMS_TRIGGERS_QUEUE_URL.*\[triggers\]"):
        Settings().create_trigger_pipeline()
    settings = Settings.from_environment({"OMS_TRIGGERS_ENVIRONMENT": "dev"})
    with pytest.raises(ConfigurationError, match="queue_url is missing"):
        settings.create_trigger_pipeline()

    async def handle(start: Start) -> list[str]:
        return list(start.request.symbols)

    async with settings.create_trigger_pipeline(handle) as pipeline:
        assert (await pipeline.handle({"urgent": True})).result == ["AAPL", "MSFT", "GOOGL"]


def test_the_example_of_triggers_is_the_preset_of_prod() -> None:
    triggers = Settings.from_file(Path(__file__).parents[2] / "examples" / "triggers.toml", env={}).triggers
    assert triggers is not None
    fields = dict(triggers)
    # All that the preset tells its function, but for the bus, which is optional there too.
    assert all(fields[name] for name in (*IngestionEnvironment.__annotations__, "symbols_parameter", "aws_region"))
    assert (triggers.config.defaults.symbols, triggers.config.defaults.period) == ((), "5d")
    assert triggers.config.options.chunk_size == 10
