"""What came in, from whatever source, read as drafts of starts."""
