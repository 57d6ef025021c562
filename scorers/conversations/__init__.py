"""From a conversation to token ids: what the chat template makes of it, and where the answers stand."""
