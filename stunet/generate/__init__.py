"""What a user asks of a trained model."""
