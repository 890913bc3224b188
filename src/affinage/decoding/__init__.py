"""What logits say: labels, entities, answers, zero-shot labels, masked words. NumPy only."""
