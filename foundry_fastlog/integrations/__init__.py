"""Adapters for trainers of other libraries; each module needs its own, and is loaded by its users.

Nothing of the package imports them, and none of them imports another but `adapter`.
"""
