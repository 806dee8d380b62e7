"""The command `foundry-fastlog`."""
