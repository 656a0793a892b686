"""What clips are like, real or generated; what figures over seeds say; the page that shows it."""
