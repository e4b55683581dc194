"""The only door to aioboto3 and botocore. `config` and `sending` can be imported without them."""
