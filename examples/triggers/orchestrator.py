"""The function of the preset `ingestion-triggers`: symbols go to the queue in chunks. Lambda calls `handler`."""

# [start:imports]
from __future__ import annotations

import logging

from oms_events.instrumentation import CorrelationFilter
from oms_events.triggers import RuleViolation, TriggerRequest, create_ingestion_pipeline

# [end:imports]

# [start:logging]
logging.getLogger("oms_events").setLevel(logging.INFO)
for one in logging.getLogger().handlers:
    one.addFilter(CorrelationFilter())
# [end:logging]


# [start:pipeline]
def minutes_of_a_month(request: TriggerRequest) -> RuleViolation | None:
    """The upstream keeps minutes for a month."""
    if not request.interval.endswith("m") or request.period in ("1d", "5d", "1mo"):
        return None
    remedy = "ask for a month of minutes at most"
    return RuleViolation("PERIOD_TOO_LONG", remedy, "period", request.period, fallback={"period": "1mo"})


pipeline = create_ingestion_pipeline(rules=[minutes_of_a_month])
handler = pipeline.lambda_handler
# [end:pipeline]
