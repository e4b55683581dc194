"""`oms-events infra ...`: the AWS side, made and checked."""
