"""Other formats: JSONL in one file, and traces for Perfetto."""
