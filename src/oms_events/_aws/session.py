"""Opens AWS clients as the configuration says: credentials, roles, TLS, proxies.

Those that send events and items do not retry by themselves; those of control planes do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

import aioboto3
import aiobotocore.session
import orjson
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentialResolver, AioDeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ProfileNotFound
from botocore.loaders import create_loader

from oms_events._aws.config import AwsConfig
from oms_events._aws.direct import DirectCaller
from oms_events._aws.errors import control_error, publish_error
from oms_events._aws.http import CURRENT_SENDING, HttpSession, http_session_of
from oms_events._aws.marshal import binary_text
from oms_events._aws.sending import Sending
from oms_events.errors import ConfigurationError, EventRejectedError

_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")
_CONTROL_CONNECTIONS: Final = 10


class AwsClient:
    """One service's client, its connections, and the direct way beside it. Made by `open_client`."""

    def __init__(
        self,
        client: Any,
        stack: AsyncExitStack,
        *,
        direct: DirectCaller | None = None,
    ) -> None:
        self._client = client
        self._marks = http_session_of(client) is not None
        self._retries = not self._marks and _may_retry(client)
        self._direct = direct
        self._stack = stack

    @property
    def direct(self) -> bool:
        """Whether `send` goes the direct way."""
        return self._direct is not None and self._direct.ready

    @property
    def region(self) -> str | None:
        """The region that calls go to, where the client says so."""
        region = getattr(getattr(self._client, "meta", None), "region_name", None)
        return region if isinstance(region, str) else None

    @property
    def endpoint_url(self) -> str | None:
        """Where calls go to, where the client says so."""
        endpoint = getattr(getattr(self._client, "meta", None), "endpoint_url", None)
        return endpoint if isinstance(endpoint, str) else None

    async def call(self, operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Calls an operation that changes nothing, once; raises a `PublishError`, never an unknown one."""
        try:
            return await self._ordinary(operation, parameters)
        except Exception as error:
            failure = publish_error(error, operation=operation, sent=False)
            raise failure from failure.__cause__

    async def send(self, operation: str, parameters: Mapping[str, Any], sending: Sending) -> Mapping[str, Any]:
        """Calls an operation that stores something, once; raises a `PublishError`.

        `parameters` are JSON as the wire has it, but for `bytes`; what has no such form is an
        `EventRejectedError`. `sending` tells after a cancellation whether it was sent. A borrowed client that
        retries by itself is not believed when it tells a refusal after that.
        """
        body = _encoded(operation, parameters)
        # A client over another HTTP session than ours does not tell when it sends.
        sending.begun = not self._marks
        token = CURRENT_SENDING.set(sending)
        try:
            if self._direct is not None and self._direct.ready:
                return await self._direct.call(operation, body)
            return await self._ordinary(operation, parameters)
        except Exception as error:
            failure = publish_error(error, operation=operation, sent=sending.begun, retries=self._retries)
            raise failure from failure.__cause__
        finally:
            CURRENT_SENDING.reset(token)

    async def close(self) -> None:
        """Closes what was opened here; a borrowed client stays open."""
        await self._stack.aclose()

    async def _ordinary(self, operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        method = getattr(self._client, _CAPITAL.sub("_", operation).lower())
        answer: Mapping[str, Any] = await method(**parameters)
        return answer


async def open_client(
    config: AwsConfig,
    service: str,
    *,
    connections: int,
    direct: bool = True,
    session: aioboto3.Session | None = None,
    client: Any = None,
) -> AwsClient:
    """Makes a client of `service`, or takes the borrowed one; the first call connects.

    The direct way is for clients of our own: a borrowed one may have event handlers that must be heard.
    Raises `ConfigurationError` for a missing region, profile or file, and a `PublishError` when credentials
    cannot be had.
    """
    stack = AsyncExitStack()
    if client is not None:
        return AwsClient(client, stack)
    try:
        made: Any = session or await asyncio.to_thread(_make_session, config, service)
        region = _region_of(config, made)
        credentials = await made.get_credentials() if direct and session is None else None
        opened = await stack.enter_async_context(
            _make_client(made, config, service, region, _client_config(config, connections))
        )
    except ProfileNotFound as error:
        raise _no_profile(config, error) from error
    except BotoCoreError as error:
        failure = publish_error(error, operation="", sent=False)
        raise failure from failure.__cause__
    caller = DirectCaller(opened, credentials) if credentials is not None else None
    return AwsClient(opened, stack, direct=caller)


async def enter_control_client(
    stack: AsyncExitStack, config: AwsConfig, service: str, *, attempts: int, session: aioboto3.Session | None
) -> Any:
    """Enters aioboto3's own client of a control plane into `stack`: it checks parameters, and tries a call up to
    `attempts` times by botocore's standard retries.

    Raises `ConfigurationError` for a missing region, profile or file, and a `ProvisioningError` when credentials
    cannot be had.
    """
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    options = _client_config(config, _CONTROL_CONNECTIONS, parameter_validation=True, retries=retries)
    try:
        made: Any = session or await asyncio.to_thread(_make_session, config, service)
        return await stack.enter_async_context(
            _make_client(made, config, service, _region_of(config, made), options)
        )
    except ProfileNotFound as error:
        raise _no_profile(config, error) from error
    except BotoCoreError as error:
        failure = control_error(error, operation=f"opening {service}")
        raise failure from failure.__cause__


def _make_client(session: Any, config: AwsConfig, service: str, region: str, options: AioConfig) -> Any:
    return session.client(
        service, region_name=region, endpoint_url=config.endpoint_url, verify=config.ca_bundle, config=options
    )


def _region_of(config: AwsConfig, session: Any) -> str:
    region: str | None = config.aws_region or session.region_name
    if region is None:
        raise ConfigurationError(
            type(config).__name__,
            ["field 'aws_region' is missing; give it, or set AWS_DEFAULT_REGION or the profile's region"],
        )
    return region


def _no_profile(config: AwsConfig, error: Exception) -> ConfigurationError:
    where = "profile_name" if config.profile_name is not None else "AWS_PROFILE"
    return ConfigurationError(type(config).__name__, [f"{where}: {error}"])


def _encoded(operation: str, parameters: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(parameters, default=binary_text)
    except (TypeError, ValueError, RecursionError) as error:
        raise EventRejectedError(f"not sent, the request of {operation} has no JSON form: {error}") from error


def _may_retry(client: Any) -> bool:
    retries = getattr(getattr(getattr(client, "meta", None), "config", None), "retries", None)
    return (retries or {}).get("total_max_attempts") != 1


def _client_config(config: AwsConfig, connections: int, **changes: Any) -> AioConfig:
    proxies = {scheme: url.get_secret_value() for scheme, url in config.proxies.items()}
    options = {
        "http_session_cls": HttpSession,
        "connect_timeout": config.connect_timeout,
        "read_timeout": config.read_timeout,
        "max_pool_connections": connections,
        "proxies": proxies or None,
        "client_cert": config.client_cert,
        "parameter_validation": False,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
    }
    return AioConfig(**{**options, **changes})


def _make_session(config: AwsConfig, service: str) -> aioboto3.Session:
    """Reads files: runs in a thread."""
    certificates = (config.client_cert,) if isinstance(config.client_cert, str) else config.client_cert or ()
    missing = [
        f"{field} = {path!r}: no such file"
        for field, path in (("ca_bundle", config.ca_bundle), *(("client_cert", path) for path in certificates))
        if path is not None and not Path(path).is_file()
    ]
    if missing:
        raise ConfigurationError(type(config).__name__, missing)
    core = _make_core(config, service)
    session = _wrap(
        core,
        aws_access_key_id=_secret(config.aws_access_key_id),
        aws_secret_access_key=_secret(config.aws_secret_access_key),
        aws_session_token=_secret(config.aws_session_token),
        region_name=config.aws_region,
    )
    if config.role_arn is None:
        return session
    _warm_up(core, "sts")
    role = _make_core(config, service)
    role.register_component("credential_provider", AioCredentialResolver([_RoleProvider(session, config)]))
    return _wrap(role, region_name=session.region_name)


def _make_core(config: AwsConfig, service: str) -> Any:
    core = aiobotocore.session.get_session()
    if config.profile_name is not None:
        # Before anything is read: the profile that the environment names may not exist.
        core.set_config_variable("profile", config.profile_name)
    _warm_up(core, service)
    return core


def _wrap(core: Any, **options: Any) -> aioboto3.Session:
    session = aioboto3.Session(botocore_session=core, **options)
    # It adds a directory of its own to the loader, which all sessions share, each time.
    paths = core.get_component("data_loader").search_paths
    paths[:] = dict.fromkeys(paths)
    return session


def _warm_up(core: Any, service: str) -> None:
    """Reads botocore's models into its loader's cache here, so that the event loop need not."""
    loader = _loader(core.get_config_variable("data_path"))
    core.register_component("data_loader", loader)
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model(service, kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(name)


@cache
def _loader(data_path: str | None) -> Any:
    """One for all sessions of the process: a deployment opens many clients, and each would read megabytes."""
    return create_loader(data_path)


class _RoleProvider:
    """Assumes the configured role when credentials are first needed, and again before they expire."""

    METHOD = "oms-events-assume-role"

    def __init__(self, source: aioboto3.Session, config: AwsConfig) -> None:
        self._source = source
        self._config = config

    async def load(self) -> AioDeferredRefreshableCredentials:
        return AioDeferredRefreshableCredentials(refresh_using=self._assume, method=self.METHOD)

    async def _assume(self) -> dict[str, Any]:
        config = self._config
        request = {
            "RoleArn": config.role_arn,
            "RoleSessionName": config.role_session_name,
            "DurationSeconds": config.role_duration,
        }
        if config.role_external_id is not None:
            request["ExternalId"] = config.role_external_id
        async with self._source.client(
            "sts",
            endpoint_url=config.sts_endpoint_url,
            verify=config.ca_bundle,
            config=_client_config(config, 1),
        ) as sts:
            answer = await sts.assume_role(**request)
        made = answer["Credentials"]
        return {
            "access_key": made["AccessKeyId"],
            "secret_key": made["SecretAccessKey"],
            "token": made["SessionToken"],
            "expiry_time": made["Expiration"].isoformat(),
        }


def _secret(value: Any) -> str | None:
    return None if value is None else value.get_secret_value()
