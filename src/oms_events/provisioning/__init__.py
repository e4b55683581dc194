"""The AWS side from typed specs, through CloudFormation."""
