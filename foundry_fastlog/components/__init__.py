"""What a training script logs with: metrics, performance, errors, and all of them together."""
