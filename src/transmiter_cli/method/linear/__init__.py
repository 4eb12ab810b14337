"""Linear classifiers of embeddings, in closed form: ridge regression, discriminant analysis and what follows them."""
