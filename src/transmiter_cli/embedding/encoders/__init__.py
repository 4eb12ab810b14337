"""Open_clip models: what a name means, where its weights are, and how it encodes images and prompts fast."""
