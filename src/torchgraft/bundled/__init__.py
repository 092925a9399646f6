"""Small base models that torchgraft brings along.

Each is three files of one name: the network (`NAME.py`, with a function `NAME` that builds it), the recipe that
trained it (`NAME.yaml`), and what came out (`NAME.safetensors`, written by `make base`).
"""
