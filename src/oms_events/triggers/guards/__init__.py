"""What keeps starts from running twice, too often, or in vain; usable alone."""
