"""From a conversation to a prompt, by the template that came with a model."""
