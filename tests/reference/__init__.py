"""An independent, deliberately naive implementation of docs/spec.md in plain Python."""
