"""Text: tokens, GloVe word vectors, vocabularies."""
