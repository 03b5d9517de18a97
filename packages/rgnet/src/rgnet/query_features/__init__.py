"""Features of queries: token vectors and sentence vectors, from files or from word vectors."""
