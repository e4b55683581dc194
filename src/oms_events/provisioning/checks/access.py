"""With whose credentials, and where, each part of AWS is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from oms_events._aws.config import AwsConfig
from oms_events.provisioning.checks.services import Clients, Services

_Config = TypeVar("_Config", bound=AwsConfig)


@dataclass(frozen=True, slots=True)
class View:
    """How one configuration is looked at: `services` look, and `own` has the configuration's own credentials.

    `main` is what `services` have for the service that the configuration is about.
    """

    services: Services
    own: Services
    main: AwsConfig

    def of(self, config: _Config) -> _Config:
        """The configuration with the credentials and the place of this view."""
        return config.model_copy(update={name: getattr(self.main, name) for name in AwsConfig.model_fields})


def view_of(config: AwsConfig, service: str, *, clients: Clients, aws: AwsConfig | None) -> View:
    """The view of a configuration that is about `service`; `aws` looks in its place, where it is given."""
    elsewhere = None if aws is None else aws.endpoint_url
    region = config.aws_region if aws is None else config.aws_region or aws.aws_region
    own = _plain(config, endpoint_url=elsewhere, aws_region=region)
    looking = own if aws is None else _plain(aws, aws_region=region)
    main = _plain(looking, endpoint_url=config.endpoint_url or elsewhere)
    return View(Services(clients, looking, {service: main}), Services(clients, own), main)


def _plain(config: AwsConfig, **changes: Any) -> AwsConfig:
    return AwsConfig(**{name: getattr(config, name) for name in AwsConfig.model_fields} | changes)
