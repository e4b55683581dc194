"""Commands and queries as JSON, without HTTP."""
