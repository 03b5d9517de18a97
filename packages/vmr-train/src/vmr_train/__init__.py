"""One training loop for all methods in plain PyTorch, checkpoints without pickle, reports, and command helpers."""
