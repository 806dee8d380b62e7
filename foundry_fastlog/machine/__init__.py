"""CPU, memory and GPU figures, sampled in the background."""
