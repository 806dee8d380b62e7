"""Checks the device path on a GPU with one command, `make gpu-check`; see ../README.md.

The runner (`__main__`, `runner`, `table`) needs only Python. Each part runs in its own process
group (`child`), writes its findings line by line, and may fail, hang or crash.
"""
