"""URLs of queues of SQS: one rule for all who take one. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

_QUEUE_URL: Final = re.compile(r"https?://[^\s/@]+/[^\s@]*[^\s/@]")
_FIFO: Final = ".fifo"


def queue_name(url: str) -> str:
    """The queue's name, the last part of its URL."""
    return url.rpartition("/")[2]


def is_fifo(url: str) -> bool:
    """Whether it is a FIFO queue's."""
    return url.endswith(_FIFO)


def _check_queue_url(url: str) -> str:
    if _QUEUE_URL.fullmatch(url) is None:
        raise ValueError(
            "give the queue's URL, such as https://sqs.eu-central-1.amazonaws.com/111122223333/chunks"
        )
    return url


def _check_fifo_url(url: str) -> str:
    if not is_fifo(url):
        raise ValueError("give the URL of a FIFO queue, which ends with .fifo: starts go on in order")
    return _check_queue_url(url)


QueueUrl = Annotated[str, AfterValidator(_check_queue_url)]
FifoUrl = Annotated[str, AfterValidator(_check_fifo_url)]
