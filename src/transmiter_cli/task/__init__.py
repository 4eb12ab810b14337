"""What is to be recognised: the vocabulary, the fine-tuned weak model, and the choice of labelled images."""
