"""The adapters to the platforms: each knows one wire, and no policy."""
