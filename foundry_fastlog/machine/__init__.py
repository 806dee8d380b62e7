"""CPU, memory and GPU figures, sampled off the hot path."""
