"""What the package needs of the operating system: files, locks, memory, devices, signals."""
