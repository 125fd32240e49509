"""What is scored after training, and drawn."""
