"""The runs a person asks for, one file a verb; the only place that wires the layers below together."""
