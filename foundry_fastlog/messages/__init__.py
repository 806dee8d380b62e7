"""Structured messages on top of the standard library's logging, text logs, and their set-up."""
