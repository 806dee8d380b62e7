"""What a trainer logs with: MetricsLogger, PerformanceLogger, ErrorTracker, ExperimentLogging."""
