"""The commands, a file each: parsing only. Each imports what it needs when it runs."""
