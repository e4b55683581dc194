"""What an error of aioboto3 or of AWS means: for one delivery, or for a call of a control plane."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from botocore import exceptions as boto

from oms_events.errors import (
    AccessError,
    EventRejectedError,
    PlatformDeniedError,
    ProvisioningError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)

_THROTTLED: Final = frozenset(
    ("BandwidthLimitExceeded", "EC2ThrottledException", "PriorRequestNotComplete",
     "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled",
     "RequestThrottledException", "SlowDown", "ThrottledException", "Throttling", "ThrottlingException",
     "TooManyRequestsException")
)  # fmt: skip
_BAD_SIGNATURE: Final = frozenset(
    ("IncompleteSignature", "IncompleteSignatureException", "InvalidSignatureException",
     "SignatureDoesNotMatch")
)  # fmt: skip
_EXPIRED: Final = frozenset(("ExpiredToken", "ExpiredTokenException", "RequestExpired"))
_NO_ACCESS: Final = _BAD_SIGNATURE | _EXPIRED | frozenset(
    ("AccessDenied", "AccessDeniedException", "AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId",
     "MissingAuthenticationToken", "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired",
     "UnauthorizedOperation", "UnrecognizedClientException")
)  # fmt: skip
_DENIED: Final = _NO_ACCESS | frozenset(
    ("InvalidAccountIdException", "ResourceNotFoundException", "UnknownOperationException")
)
_REJECTED: Final = frozenset(
    ("InvalidParameterValue", "RequestEntityTooLarge", "SerializationException", "ValidationError",
     "ValidationException")
)  # fmt: skip

# Raised before anything is sent: no usable credentials, or a set-up that can never work.
_UNUSABLE: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.SSOError,
    boto.NoAuthTokenError,
    boto.InvalidConfigError,
    boto.ConfigNotFound,
    boto.ProfileNotFound,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    boto.InvalidProxiesConfigError,
    boto.NoRegionError,
    boto.InvalidRegionError,
    boto.UnknownCredentialError,
)


def publish_error(error: Exception, *, operation: str, sent: bool = True, retries: bool = False) -> PublishError:
    """Classifies what a call of `operation` raised, as the table of failures says; never shows a secret.

    `sent` tells whether the request may have left this machine: if not, nothing is unknown. `retries` says that
    the client may have sent it more than once: its error is that of the last time only.
    """
    if isinstance(error, PublishError):
        return error
    if isinstance(error, boto.ClientError):
        # A role that is assumed on the way has answers of its own, before anything was published.
        result = _answered(error.response, sent=sent and error.operation_name == operation)
        if result.code in _BAD_SIGNATURE:
            # AWS's text repeats the signed headers, and with them the session token.
            return result
    else:
        result = _unanswered(error, sent=sent, retries=retries)
    result.__cause__ = error
    return result


def control_error(error: Exception, *, operation: str) -> ProvisioningError:
    """What a control plane's call of `operation` raised: an `AccessError` for credentials and permissions.

    Never shows a secret. `code` is AWS's own; the answer of a role that is assumed on the way is told as such.
    """
    if isinstance(error, boto.ClientError):
        result = _refused(error, operation)
        if result.code in _BAD_SIGNATURE:
            # AWS's text repeats the signed headers, and with them the session token.
            return result
    elif isinstance(error, _UNUSABLE):
        remedy = "give a profile, a role or keys, or set up the normal AWS chain"
        result = AccessError(
            f"{operation}: no credentials that can be used: {type(error).__name__}: {error}; {remedy}",
            operation=operation,
        )
    elif isinstance(error, boto.ParamValidationError):
        result = ProvisioningError(f"{operation}: the AWS client refused the request: {error}")
    else:
        # No answer of AWS: connections, TLS, proxies. Their texts are made in one place.
        result = ProvisioningError(f"{operation}: {_unanswered(error, sent=True, retries=False)}")
    result.__cause__ = error
    return result


def _refused(error: boto.ClientError, operation: str) -> ProvisioningError:
    code, message, status = _code_of(error.response)
    if code not in _NO_ACCESS and status not in (401, 403, 407):
        return ProvisioningError(f"{operation}: AWS answered {code}: {message}", code=code)
    text = f"{operation}: AWS answered {code}" + (f": {message}" if code not in _BAD_SIGNATURE else "")
    if error.operation_name != operation:
        remedy = "the role cannot be assumed: check role_arn, its trust policy and the credentials"
    elif code in _EXPIRED:
        remedy = "the credentials have expired: get new ones"
    elif code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
        remedy = f"allow {operation} to these credentials"
    else:
        remedy = "check the credentials, and this machine's clock"
    return AccessError(f"{text}; {remedy}", operation=operation, code=code)


def _code_of(response: Mapping[str, Any]) -> tuple[str, str, int]:
    """AWS's code, the first line of its text, and the status of HTTP."""
    answer = response.get("Error", {})
    message = str(answer.get("Message") or "").partition("\n")[0][:500]
    status: int = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(answer.get("Code") or ""), message, status


def _answered(response: Mapping[str, Any], *, sent: bool) -> PublishError:
    code, message, status = _code_of(response)
    metadata = response.get("ResponseMetadata", {})
    text = f"AWS answered {status} {code}: {message}" if message else f"AWS answered {status} {code}"
    throttled = code in _THROTTLED or status == 429
    retry_after = _retry_after(metadata.get("HTTPHeaders", {})) if throttled else None
    if sent and metadata.get("RetryAttempts"):
        # An earlier try may have been done without a word, and this answer is about the last one.
        text = f"{text}; the client had sent it before by itself"
        return UnknownOutcomeError(text, code=code, retry_after=retry_after, throttled=throttled)
    if throttled:
        return TransientError(text, code=code, retry_after=retry_after, throttled=True)
    if code in _DENIED or status in (401, 403, 404, 407):
        return PlatformDeniedError(text, code=code)
    if code in _REJECTED or status == 413:
        return EventRejectedError(text, code=code)
    # 408 may come from a proxy that gave up waiting for AWS.
    if sent and (status >= 500 or status == 408):
        return UnknownOutcomeError(text, code=code)
    return TransientError(text, code=code)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of the Retry-After header; its other form, a date, would need two clocks that agree."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _unanswered(error: Exception, *, sent: bool, retries: bool) -> PublishError:
    cause = getattr(error, "kwargs", {}).get("error")
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, boto.EndpointConnectionError):
        # botocore says only that it could not connect, of a reset too. str: the repr has the proxy's password.
        text = f"{text} ({type(cause).__name__}: {cause})"
    if isinstance(error, boto.SSLError) or _is_tls(error) or _is_tls(cause):
        return PlatformDeniedError(f"TLS with AWS failed: {text}")
    if isinstance(error, _UNUSABLE):
        remedy = "give keys, a profile or a role, or set up the normal AWS chain, and check aws_region"
        return PlatformDeniedError(f"AWS credentials or settings cannot be used: {text}; {remedy}")
    if isinstance(error, boto.ParamValidationError):
        return EventRejectedError(f"the AWS client refused the request: {text}")
    never_connected = isinstance(error, boto.ConnectTimeoutError | boto.ProxyConnectionError) or isinstance(
        cause, aiohttp.ClientConnectorError
    )
    if never_connected and not (sent and retries):
        return TransientError(f"not sent, no connection to AWS: {text}")
    if not sent:
        return TransientError(f"AWS did not answer, nothing was stored: {text}")
    return UnknownOutcomeError(f"sent to AWS, but no answer came: {text}")


def _is_tls(error: object) -> bool:
    # A refused client certificate shows only in the first read after the handshake (TLS 1.3).
    return isinstance(error, ssl.SSLError) or (
        isinstance(error, OSError) and isinstance(error.__cause__, ssl.SSLError)
    )
