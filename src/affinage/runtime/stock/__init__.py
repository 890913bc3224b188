"""The calling conventions and results of transformers' pipelines, so that replacing one is replacing one line."""
