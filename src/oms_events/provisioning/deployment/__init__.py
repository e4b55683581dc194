"""Templates to stacks, through CloudFormation's change sets."""
