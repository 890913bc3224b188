"""Data augmentation: new texts made of old ones by replacing words (Jiao et al. 2020, TinyBERT)."""
