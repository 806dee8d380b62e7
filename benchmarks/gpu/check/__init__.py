"""The device path proven on a GPU in one command, `make gpu-check`; see ../README.md.

The runner (`__main__`, `runner`, `table`) needs nothing but Python. Each part runs in a process
group of its own (`child`), writes what it finds line by line, and may fail, hang or crash.
"""
