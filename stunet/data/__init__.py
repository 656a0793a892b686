"""Sources of clips: records on disk and drawn clips, and the batches that training reads."""
