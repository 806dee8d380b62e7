"""Other services that a run's records can go to. Each sink needs its own package."""
