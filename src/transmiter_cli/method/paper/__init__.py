"""The paper's adapter of logits: fitted on the weak model, transferred to the strong one, refined."""
