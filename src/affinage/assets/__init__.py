"""Files that ship with affinage: pages, samples, weights, lists."""
