"""Other formats: JSON Lines in one file, tables, traces, events, and what monitoring reads."""
