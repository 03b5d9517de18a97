"""From videos and sentences to features, and from moments to answers that one can watch."""
