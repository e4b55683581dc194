"""Which class a client's last error has."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from nats import errors
from nats.aio.client import Client

from oms_events._nats.connection import fault_of
from oms_events.errors import PlatformDeniedError, TransientError


def said(message: str) -> errors.Error:
    return errors.Error(f"nats: {message}")


@pytest.mark.parametrize(
    "error",
    [
        said("'Authorization Violation'"),
        said("user authentication expired"),
        said("'Authentication Expired'"),
        said("account authentication expired"),
        said("user authentication revoked"),
        errors.AuthorizationError(),
        errors.InvalidUserCredentialsError(),
        FileNotFoundError(2, "No such file", "oms.creds"),
        ssl.SSLCertVerificationError("unknown authority"),
        ValueError("no seed"),
    ],
)
def test_what_stays_wrong_is_denied(error: Exception) -> None:
    assert type(fault(error)) is PlatformDeniedError


@pytest.mark.parametrize(
    "error",
    [
        None,
        said("'Authentication Timeout'"),
        said("'maximum connections exceeded'"),
        said("'maximum account active connections exceeded'"),
        said('permissions violation for publish to "oms.account.revoked"'),
        errors.TimeoutError(),
        TimeoutError(),
        ConnectionRefusedError(111, "refused"),
        EOFError(),
        asyncio.IncompleteReadError(b"", 4),
        asyncio.LimitOverrunError("too long", 1),
    ],
)
def test_what_may_be_better_later_is_transient(error: Exception | None) -> None:
    assert type(fault(error)) is TransientError


def fault(error: Exception | None) -> Exception:
    client = Client()
    client._err = error
    return fault_of(client)
