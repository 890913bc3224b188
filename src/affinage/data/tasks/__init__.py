"""Tasks that come with affinage: one YAML file each."""
