"""Statistics over seeds, conclusions in sentences, drawings, and the HTML page that shows them."""
