"""Students: how they are made from a teacher, and what they learn from it."""
