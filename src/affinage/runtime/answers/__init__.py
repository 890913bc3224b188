"""What models say about inputs, as affinage words it: one file a kind of answer."""
