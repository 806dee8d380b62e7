"""What others' trainers and scripts call: their interfaces, recording into runs of this package.

Nothing of the package imports these modules; each is loaded by who uses it.
"""
