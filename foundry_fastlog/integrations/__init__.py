"""What others' trainers and scripts call: their interfaces, recording into runs of this package."""
