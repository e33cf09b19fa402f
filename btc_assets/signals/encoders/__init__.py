"""From numbers to vectors: encoders, their training, their artefacts and their registry. Reads no ticks."""
