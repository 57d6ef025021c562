"""The numbers: proxy model, one forward pass, and the pruning methods that read its signals.

Depends on torch, transformers and numpy alone, so that it imports on a bare GPU machine.
"""
