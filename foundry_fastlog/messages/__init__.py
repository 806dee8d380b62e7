"""Fields over the standard library's logging: StructuredLogger, text logs, their set-up."""
