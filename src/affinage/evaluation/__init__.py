"""How good a model is: metrics, intervals, evaluation over a data set, footprint."""
