"""Settings: pydantic models and YAML."""
