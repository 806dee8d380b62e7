"""What a browser shows: the report, the live page, and the scripts they share."""
