"""What the tutorial's training reaches."""
