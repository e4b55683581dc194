"""Event sourcing on DynamoDB."""
