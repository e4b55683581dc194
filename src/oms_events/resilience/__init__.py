"""What keeps a platform's trouble from spreading: pure state machines, the clock and the dice passed in."""
