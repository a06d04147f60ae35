"""What the project needs of the operating system: files, locks, memory, devices, signals."""
