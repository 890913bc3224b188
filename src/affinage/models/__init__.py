"""Stock models: their layout, signals, weights and folders. The only importer of transformers' model classes."""
