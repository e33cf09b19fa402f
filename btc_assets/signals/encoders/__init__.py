"""From numbers to vectors: encoders, their training, their artifacts and the table of models. No ticks here."""
