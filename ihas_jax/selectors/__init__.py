"""Selection methods: transforms of looked-up embeddings with parameters of their own."""
