"""From a folder of videos and captions to records of clips that training reads."""
