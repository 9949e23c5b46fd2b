"""The two kinds of encoders in transformers, and what they share."""
