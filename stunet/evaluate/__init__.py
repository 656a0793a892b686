"""What trained models are worth: figures over seeds, and the page that shows them."""
