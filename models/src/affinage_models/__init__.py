"""The encoders that come with affinage, as folders of transformers: `shipped:teacher`, `shipped:student`."""
