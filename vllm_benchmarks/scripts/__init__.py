"""Commands that are run as files."""
